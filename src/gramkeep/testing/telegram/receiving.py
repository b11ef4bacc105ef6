"""How the bot receives updates: getUpdates and the webhook methods, one excluding the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gramkeep.testing.telegram import parameters
from gramkeep.testing.telegram.errors import conflict
from gramkeep.testing.telegram.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable

    from gramkeep.testing.telegram.objects import JSON
    from gramkeep.testing.telegram.world import World

LONGEST_POLL = 50  # seconds; the Bot API server's LONG_POLL_MAX_TIMEOUT

RECEIVING = ("getUpdates", "setWebhook", "deleteWebhook", "getWebhookInfo")


class Receiving:
    """Carries out the four methods; `began` once the bot polled or set a webhook."""

    def __init__(
        self,
        world: World,
        carry_out_for_webhook: Callable[[str, JSON], None],
        *,
        webhook_in_order: bool,
        webhook_backoff: float,
    ) -> None:
        self.began = False
        self._world = world
        self._mailbox = world.mailbox
        self._carry_out_for_webhook = carry_out_for_webhook
        self._webhook_in_order = webhook_in_order
        self._webhook_backoff = webhook_backoff
        self._webhook: Webhook | None = None

    async def carry_out(self, name: str, params: JSON) -> Any:
        if name == "getUpdates":
            return await self._get_updates(params)
        if name == "getWebhookInfo":
            return self._webhook_info()
        return await self._set_webhook(params if name == "setWebhook" else params | {"url": ""})

    async def _get_updates(self, params: JSON) -> list[JSON]:
        if self._webhook is not None:
            raise conflict(
                "can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first"
            )
        self._allow_updates(params)
        self._begin()
        return await self._mailbox.get_updates(
            parameters.integer(params, "offset"),
            parameters.integer(params, "limit", 100, 1, 100),
            parameters.integer(params, "timeout", 0, 0, LONGEST_POLL),
        )

    async def _set_webhook(self, params: JSON) -> bool:
        await self.close_webhook()
        if parameters.flag(params, "drop_pending_updates"):
            self._mailbox.drop_all()
        if parameters.text(params, "url") is not None:
            self._allow_updates(params)
            self._webhook = Webhook(
                params,
                self._mailbox,
                self._carry_out_for_webhook,
                in_order=self._webhook_in_order,
                first_backoff=self._webhook_backoff,
            )
            self._mailbox.interrupt("terminated by setWebhook request")
            self._mailbox.listener = self._webhook.send
            for pending in list(self._mailbox.pending.values()):
                self._webhook.send(pending)
            self._begin()
        return True

    def _webhook_info(self) -> JSON:
        none: JSON = {"url": "", "has_custom_certificate": False}
        info = none if self._webhook is None else self._webhook.info()
        info["pending_update_count"] = len(self._mailbox.pending)
        if self._mailbox.allowed:
            info["allowed_updates"] = self._mailbox.allowed
        return info

    async def close_webhook(self) -> None:
        """Stop delivery to the webhook, if one is set."""
        # Another setWebhook may come while the old one closes.
        while (webhook := self._webhook) is not None:
            self._webhook = self._mailbox.listener = None
            await webhook.close()

    def _allow_updates(self, params: JSON) -> None:
        """Take over the setting; "if not specified, the previous setting will be used"."""
        kinds = params.get("allowed_updates")
        if isinstance(kinds, list):
            self._mailbox.allow(str(kind) for kind in kinds)

    def _begin(self) -> None:
        self.began = True
        self._world.bell.ring()
