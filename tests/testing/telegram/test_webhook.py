"""Delivery by webhook: headers, order, retries, answers in the answer."""

import asyncio

import pytest
from aiohttp import web


class Receiver:
    """A web server of the bot: keeps what it got, answers what `answer` gives."""

    def __init__(self):
        self.updates = []
        self.headers = []
        self.at_once = self.most_at_once = 0
        self.changed = asyncio.Condition()
        self.answer = self.ok

    async def ok(self, update):
        return web.Response()

    async def handle(self, request):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            update = await request.json()
            self.updates.append(update)
            self.headers.append(request.headers)
            async with self.changed:
                self.changed.notify_all()
            return await self.answer(update)
        finally:
            self.at_once -= 1

    async def until(self, ready):
        async with self.changed:
            await self.changed.wait_for(ready)

    @property
    def texts(self):
        return [update["message"]["text"] for update in self.updates]


@pytest.fixture
async def receiver():
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


async def test_updates_are_posted_with_the_secret_token(telegram, result, receiver):
    alice = telegram.user("Alice")
    await result("setWebhook", url=receiver.url, secret_token="s3cret")
    await alice.write("hi")
    await telegram.drained()
    assert receiver.texts == ["hi"]
    assert receiver.headers[0]["X-Telegram-Bot-Api-Secret-Token"] == "s3cret"


async def test_without_a_secret_token_there_is_no_header(telegram, result, receiver):
    await result("setWebhook", url=receiver.url)
    await telegram.user("Alice").write("hi")
    await telegram.drained()
    assert "X-Telegram-Bot-Api-Secret-Token" not in receiver.headers[0]


async def test_updates_from_before_the_webhook_are_posted_too(telegram, result, receiver):
    await telegram.user("Alice").write("early")
    await result("setWebhook", url=receiver.url)
    await telegram.drained()
    assert receiver.texts == ["early"]


async def test_pending_updates_can_be_dropped(telegram, result, receiver):
    alice = telegram.user("Alice")
    await alice.write("early")
    await result("setWebhook", url=receiver.url, drop_pending_updates=True)
    await alice.write("late")
    await telegram.drained()
    assert receiver.texts == ["late"]


async def test_a_failed_update_is_retried_before_the_next_of_its_chat(telegram, result, receiver):
    failures = iter([500, 302, 404])

    async def answer(update):
        return web.Response(status=next(failures, 200))

    receiver.answer = answer
    alice = telegram.user("Alice")
    await result("setWebhook", url=receiver.url)
    await alice.write("a")
    await alice.write("b")
    await telegram.drained()
    assert receiver.texts == ["a", "a", "a", "a", "b"]
    info = await result("getWebhookInfo")
    assert info["last_error_message"] == "Wrong response from the webhook: 404 Not Found"
    assert info["last_error_date"] > 0


async def test_an_unreachable_webhook_keeps_its_updates(telegram, result, unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}/hook"
    await result("setWebhook", url=url, allowed_updates=["message"], max_connections=7)
    await telegram.user("Alice").write("hi")
    while "last_error_message" not in (info := await result("getWebhookInfo")):
        await asyncio.sleep(0.01)
    del info["last_error_date"]
    assert info == {
        "url": url,
        "has_custom_certificate": False,
        "max_connections": 7,
        "pending_update_count": 1,
        "allowed_updates": ["message"],
        "last_error_message": "Connection refused",
    }
    await result("deleteWebhook")
    assert len(await result("getUpdates")) == 1


async def test_without_a_webhook_its_info_has_no_url(result):
    assert await result("getWebhookInfo") == {
        "url": "",
        "has_custom_certificate": False,
        "pending_update_count": 0,
    }


async def test_one_chat_waits_for_its_answer_while_others_go_on(telegram, result, receiver):
    release = asyncio.Event()

    async def answer(update):
        if update["message"]["text"] == "a1":
            await release.wait()
        return web.Response()

    receiver.answer = answer
    alice, bob = telegram.user("Alice"), telegram.user("Bob")
    await result("setWebhook", url=receiver.url)
    await alice.write("a1")
    await alice.write("a2")
    await bob.write("b1")
    await receiver.until(lambda: "b1" in receiver.texts)
    assert "a2" not in receiver.texts
    release.set()
    await telegram.drained()
    assert receiver.texts[-1] == "a2"


async def test_max_connections_bounds_how_many_updates_are_posted_at_once(
    telegram, result, receiver
):
    release = asyncio.Event()

    async def answer(update):
        await release.wait()
        return web.Response()

    receiver.answer = answer
    await result("setWebhook", url=receiver.url, max_connections=2)
    for name in "abcde":
        await telegram.user(name).write("hi")
    await receiver.until(lambda: receiver.at_once == 2)
    release.set()
    await telegram.drained()
    assert receiver.most_at_once == 2
    assert len(receiver.updates) == 5


@pytest.mark.parametrize("telegram_options", [{"webhook_in_order": False}])
async def test_updates_of_one_chat_can_be_posted_at_once(telegram, result, receiver):
    async def answer(update):
        await receiver.until(lambda: receiver.most_at_once == 3)
        return web.Response()

    receiver.answer = answer
    alice = telegram.user("Alice")
    await result("setWebhook", url=receiver.url)
    for _ in range(3):
        await alice.write("hi")
    await telegram.drained()
    assert receiver.most_at_once == 3


async def test_a_method_in_the_answer_is_carried_out(telegram, result, receiver):
    async def answer(update):
        chat_id = update["message"]["chat"]["id"]
        return web.json_response({"method": "sendMessage", "chat_id": chat_id, "text": "ok"})

    receiver.answer = answer
    alice = telegram.user("Alice")
    await result("setWebhook", url=receiver.url)
    await alice.write("hi")
    assert (await alice.next_answer()).text == "ok"
    assert telegram.calls[-1].ok


async def test_a_multipart_answer_is_carried_out(telegram, result, receiver):
    async def answer(update):
        form = {"method": "sendMessage", "chat_id": str(alice.id), "text": "ok"}
        body = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in form.items()
        )
        return web.Response(
            body=f"{body}--b--\r\n".encode(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )

    receiver.answer = answer
    alice = telegram.user("Alice")
    await result("setWebhook", url=receiver.url)
    await alice.write("hi")
    assert (await alice.next_answer()).text == "ok"


@pytest.mark.parametrize("method", ["getMe", "deleteWebhook", "sendTelepathy"])
async def test_methods_that_make_no_sense_in_an_answer_are_ignored(
    telegram, result, receiver, method
):
    async def answer(update):
        return web.json_response({"method": method})

    receiver.answer = answer
    await result("setWebhook", url=receiver.url)
    await telegram.user("Alice").write("hi")
    await telegram.drained()
    assert (await result("getWebhookInfo"))["url"] == receiver.url
    assert [call.method for call in telegram.calls] == ["setWebhook", "getWebhookInfo"]


async def test_an_update_delivered_twice_is_posted_again(telegram, result, receiver):
    telegram.faults.deliver_twice(times=1, kinds={"message"})
    alice = telegram.user("Alice")
    await result("setWebhook", url=receiver.url)
    await alice.write("a")
    await alice.write("b")
    await telegram.drained()
    assert receiver.texts == ["a", "a", "b"]
    assert receiver.updates[0]["update_id"] == receiver.updates[1]["update_id"]


async def test_of_webhooks_set_at_once_one_remains_and_none_leaks(telegram, result, receiver):
    await result("setWebhook", url=receiver.url + "?first")
    await telegram.user("Alice").write("hi")
    urls = [f"{receiver.url}?{number}" for number in range(5)]
    await asyncio.gather(*(result("setWebhook", url=url) for url in urls))
    assert (await result("getWebhookInfo"))["url"] in urls
    await telegram.drained()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/hook", "An HTTPS URL must be provided"),
        ("ftp://127.0.0.1/hook", "invalid webhook URL"),
        ("nonsense", "invalid webhook URL"),
        ("http://127.0.0.1:x/", "invalid webhook URL"),
    ],
)
async def test_a_url_telegram_could_not_reach_is_refused(call, url, why):
    answer = await call("setWebhook", url=url)
    assert answer["error_code"] == 400
    assert why in answer["description"]
