"""The demo as a chat on the terminal: what is said, and beside it what is stored."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar, Final

from rich.json import JSON
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Input, Log, Static, Tab, Tabs

from gramkeep.cli.bot_process import BotDied
from gramkeep.cli.scene import Scene
from gramkeep.testing import Chat, Message, WaitTimeout

LOOK_EVERY: Final = 0.1  # seconds between two looks at the messages, the file and the bot
HIGHLIGHT: Final = 2.0  # seconds a change stays highlighted

NOTHING = Text("no session stored", "dim")


class Bubble(Static):
    """One message."""

    def __init__(self, message: Message, *, is_own: bool) -> None:
        sender = message.sender.name if message.sender is not None else "?"
        self.text = Text.assemble((sender, "bold"), f"  {message.text or ''}")
        who = "own" if is_own else "bot" if message.from_bot else "other"
        super().__init__(self.text, classes=who)


class MessageInput(Input):
    """Where a message is typed; empty as soon as it is sent, however fast the next one comes."""

    async def action_submit(self) -> None:
        await super().action_submit()
        self.clear()


class SessionCard(Static):
    """What the file has for one chat."""

    def __init__(self, chat: Chat) -> None:
        super().__init__(NOTHING)
        self.chat = chat
        self.border_title = f"{chat.name}, key {chat.id}"
        self.value: str | None = None

    def show(self, value: str | None) -> None:
        """Show what is stored, and for a while that it changed and from what."""
        if value == self.value:
            return
        self.border_subtitle = Text(f"was {self.value or 'nothing'}")
        self.value = value
        self.update(NOTHING if value is None else JSON(value))
        self.add_class("changed")
        self.set_timer(HIGHLIGHT, lambda: self._calm_down(value))

    def _calm_down(self, value: str | None) -> None:
        if value == self.value:  # otherwise it changed again, and a later timer does it
            self.remove_class("changed")
            self.border_subtitle = ""


class ChatScreen(Screen[None]):
    """Shows the scene as it is at each look; keys and messages change the scene alone."""

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "switch(1)", "Ada/Linus"),
        Binding("f3", "switch(2)", "Alone/Team"),
        Binding("f4", "reset", "/reset"),
        Binding("f5", "kill_or_start", "Kill/start bot"),
        Binding("f6", "toggle_log", "Log"),
        Binding("ctrl+q", "app.quit", "Quit", priority=True),
        Binding("ctrl+c,f10", "app.quit", show=False, priority=True),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", show=False),
    ]

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene
        self._seat = scene.seats[0]
        self._messages_shown = 0
        self._log_shown = 0  # characters
        self._known_dead: int | None = None  # the process whose end opened the log

    def compose(self) -> ComposeResult:
        yield Tabs(*(Tab(seat.name) for seat in self._scene.seats))
        yield Static(id="state")
        with Horizontal():
            with Vertical(id="talk"):
                yield VerticalScroll(id="messages", can_focus=False)
                yield MessageInput()
            with VerticalScroll(id="stored", can_focus=False) as stored:
                stored.border_title = "Stored in bot.db"
                for chat in self._scene.chats:
                    yield SessionCard(chat)
        yield Log()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        # Whatever is clicked, what is typed goes to the message.
        self.query_one(Tabs).can_focus = self.query_one(Log).can_focus = False
        self.query_one(Log).border_title = "What the bot wrote to its log"
        self._start_bot()
        self.set_interval(LOOK_EVERY, self._look)

    def _start_bot(self) -> None:
        async def start() -> None:
            with suppress(BotDied, WaitTimeout):  # a look shows it
                await self._scene.start_bot()

        self.run_worker(start(), exclusive=True)

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        tab = event.tabs.active_tab  # the event's own may be an earlier one
        if tab is not None:
            self._sit_down(event.tabs.query(Tab).nodes.index(tab))

    def action_switch(self, bit: int) -> None:
        """Switch between the people (1) or between alone and in the group (2)."""
        number = self._scene.seats.index(self._seat) ^ bit
        self._sit_down(number)
        tabs = self.query_one(Tabs)
        tabs.active = tabs.query(Tab).nodes[number].id or ""

    def _sit_down(self, number: int) -> None:
        """Write from this seat from now on, and show its chat."""
        self._seat = self._scene.seats[number]
        self.query_one(Input).placeholder = f"Write as {self._seat.name}, and press Enter"
        self.query_one("#talk").border_title = self._seat.name
        for card in self.query(SessionCard):
            card.set_class(card.chat is self._seat.chat, "current")
        self.query_one("#messages").remove_children()
        self._messages_shown = 0
        self._show_messages()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value.strip():
            await self._seat.user.write(event.value, chat=self._seat.chat)

    async def action_reset(self) -> None:
        await self._seat.user.write("/reset", chat=self._seat.chat)

    async def action_kill_or_start(self) -> None:
        if self._scene.bot.is_running:
            await self._scene.bot.kill()
        else:
            self._start_bot()

    def action_toggle_log(self) -> None:
        self.query_one(Log).toggle_class("open")

    def action_scroll(self, direction: int) -> None:
        messages = self.query_one("#messages")
        messages.scroll_relative(y=direction * messages.size.height)

    def on_resize(self) -> None:
        self.query_one("#messages").scroll_end(animate=False)

    async def _look(self) -> None:
        self._show_bot()
        self._show_messages()
        stored = await self._scene.stored()
        for card in self.query(SessionCard):
            card.show(stored.get(str(card.chat.id)))

    def _show_bot(self) -> None:
        bot = self._scene.bot
        if bot.is_running and self._scene.bot_is_ready:
            state = "running", "bold green", f"sessions in {bot.database}"
        elif bot.is_running or bot.pid is None:
            state = "starting", "bold yellow", "a few seconds; what you write waits for it"
        elif bot.is_killed:
            state = "killed", "bold red", "the sessions stay; F5 starts it again"
        else:
            state = f"ended with exit code {bot.exit_code}", "bold red", "F5 starts it again"
            if bot.pid != self._known_dead:
                self._known_dead = bot.pid
                self.query_one(Log).add_class("open")
        word, style, remark = state
        line = Text.assemble(
            (f"● bot {word}", style), f"  {bot.framework}, process {bot.pid or '-'}  {remark}"
        )
        self.query_one("#state", Static).update(line)
        log = bot.log()
        self.query_one(Log).write(log[self._log_shown :])
        self._log_shown = len(log)

    def _show_messages(self) -> None:
        new = self._seat.chat.messages[self._messages_shown :]
        if new:
            self._messages_shown += len(new)
            messages = self.query_one("#messages")
            messages.mount_all(Bubble(m, is_own=m.sender is self._seat.user) for m in new)
            messages.scroll_end(animate=False)


class ChatApp(App[None]):
    """The chat and its looks."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #state { height: 1; padding: 0 1; background: $panel; }
    #talk { width: 3fr; border: round $primary; }
    #stored { width: 2fr; border: round $primary; scrollbar-size-vertical: 1; }
    #messages { padding: 0 1; scrollbar-size-vertical: 1; }
    Bubble { padding: 0 1; background: $panel; width: auto; max-width: 100%; }
    Bubble.own { background: $primary-darken-2; }
    Bubble.bot { background: $success-darken-3 60%; margin: 0 0 1 2; }
    SessionCard { border: round $panel-lighten-2; padding: 0 1; border-title-color: $text-muted; }
    SessionCard.current { border: round $accent; border-title-color: $text; }
    SessionCard.changed { border: heavy $warning; background: $warning 25%; }
    Log { display: none; height: 9; border: round $error; }
    Log.open { display: block; }
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def get_default_screen(self) -> ChatScreen:
        return ChatScreen(self._scene)
