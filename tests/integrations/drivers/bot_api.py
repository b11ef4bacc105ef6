"""What drivers of frameworks that speak the Bot API share: a server, and people who write there."""

from collections.abc import Sequence
from pathlib import Path

from gramkeep.testing import TelegramServer, telegram

from .base import Driver
from .events import BOT_ID, ChannelPost, Chat, Event, InlineQuery, Person, Text, Upgrade
from .handlers import PATIENCE


class BotApiDriver(Driver):
    """A bot that polls ``telegram``, a local Bot API server, over HTTP.

    Subclasses build the bot with ``telegram.token`` and let it talk to ``telegram.url``. Answers
    are those that reached the server.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.telegram = TelegramServer(token=f"{BOT_ID}:token")
        self._users: dict[int, telegram.User] = {}
        self._chats: dict[int, telegram.Chat] = {}
        self._topics: dict[int, telegram.Topic] = {}
        self._connections: dict[str, telegram.BusinessConnection] = {}

    async def open(self) -> None:
        await super().open()
        await self.telegram.start()

    async def close(self) -> None:
        await super().close()
        await self.telegram.stop()

    async def answers(self, count: int) -> list[str]:
        answers = await self.telegram.answers(count, timeout=PATIENCE)
        return [message.text or "" for message in answers]

    def topic(self, forum: Chat) -> int:
        topic = self._chat(forum).topic("News")
        self._topics[topic.id] = topic
        return topic.id

    async def connect_business(self, owner: Person) -> str:
        connection = await self._user(owner).connect_business()
        self._connections[connection.id] = connection
        return connection.id

    async def deliver(self, events: Sequence[Event]) -> None:
        with self.telegram.hold():
            for event in events:
                await self._deliver(event)

    async def _deliver(self, event: Event) -> None:
        match event:
            case Text():
                await self._write(event)
            case ChannelPost(chat, text):
                await self._chat(chat).post(text)
            case InlineQuery(sender, text):
                await self._user(sender).inline_query(text)
            case Upgrade(old, new, told_in, by):
                fields = (
                    {"migrate_to_chat_id": new.id}
                    if told_in == old
                    else {"migrate_from_chat_id": old.id}
                )
                await self._user(by).write(None, chat=self._chat(told_in, by), fields=fields)
            case _:
                poll = telegram.Poll(id="1", question="Tea?", options=["yes", "no"])
                await self.telegram.user("Someone").vote(poll, "yes")

    async def _write(self, event: Text) -> None:
        user = self._user(event.sender)
        chat = None if event.chat is None else self._chat(event.chat, event.sender)
        if event.business is not None:
            chat = self._connections[event.business].chat(user)
        topic = None if event.topic is None else self._topics[event.topic]
        await user.write(event.text, chat=chat, topic=topic)

    def _user(self, person: Person) -> telegram.User:
        if person.id not in self._users:
            self._users[person.id] = self.telegram.user(person.name, user_id=person.id)
        return self._users[person.id]

    def _chat(self, chat: Chat, *members: Person) -> telegram.Chat:
        if chat.id not in self._chats:
            options = {"forum": chat.is_forum} if chat.type == "supergroup" else {}
            add = getattr(self.telegram, chat.type)
            self._chats[chat.id] = add(str(chat.id), chat_id=chat.id, **options)
        there = self._chats[chat.id]
        there.members.extend(user for user in map(self._user, members) if user not in there.members)
        return there
