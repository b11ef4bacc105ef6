"""A real aiogram bot, polling the server over HTTP."""

import asyncio

from aiogram import Dispatcher, F
from aiogram.filters import Command, CommandStart
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message


async def test_a_command_is_answered_in_the_private_chat(telegram, polling):
    dispatcher = Dispatcher()

    @dispatcher.message(CommandStart())
    async def start(message: Message):
        await message.answer(f"Hello, {message.from_user.first_name}!")

    alice = telegram.user("Alice")
    async with polling(dispatcher):
        await alice.write("/start")
        assert (await alice.next_answer()).text == "Hello, Alice!"


async def test_a_button_is_asked_pressed_and_answered(telegram, polling):
    dispatcher = Dispatcher()
    keyboard = InlineKeyboardMarkup(
        inline_keyboard=[[InlineKeyboardButton(text="Yes", callback_data="y")]]
    )

    @dispatcher.message(Command("ask"))
    async def ask(message: Message):
        await message.reply("Sure?", reply_markup=keyboard)

    @dispatcher.callback_query(F.data == "y")
    async def pressed(query: CallbackQuery):
        await query.message.edit_text("Done")
        await query.answer("Thanks")

    alice = telegram.user("Alice")
    group = telegram.group("Friends", [alice])
    async with polling(dispatcher):
        command = await alice.write("/ask", chat=group)
        question = await group.next_answer()
        assert question.reply_to is command
        query = await alice.press(question, "Yes")
        assert (await query.answered())["text"] == "Thanks"
        assert (await group.next_edit()).text == "Done"


async def test_a_batch_of_updates_of_one_chat_is_handled_at_once(telegram, polling):
    dispatcher = Dispatcher()
    together = asyncio.Barrier(20)

    @dispatcher.message()
    async def echo(message: Message):
        await together.wait()
        await message.answer(message.text)

    alice = telegram.user("Alice")
    async with polling(dispatcher):
        with telegram.hold():
            for number in range(20):
                await alice.write(str(number))
        answers = await alice.answers(20)
        await telegram.drained()
    assert {answer.text for answer in answers} == {str(number) for number in range(20)}


async def test_a_bot_that_died_unanswered_gets_its_updates_again(telegram, polling, result):
    dispatcher = Dispatcher()

    @dispatcher.message()
    async def echo(message: Message):
        await message.answer(message.text)

    alice = telegram.user("Alice")
    await alice.write("hi")
    assert len(await result("getUpdates")) == 1  # fetched by a bot that then dies
    async with polling(dispatcher):
        assert (await alice.next_answer()).text == "hi"
        await telegram.drained()


async def test_polling_leaves_no_task_behind(telegram, polling):
    before = asyncio.all_tasks()
    async with polling(Dispatcher()):
        pass
    await telegram.stop()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
