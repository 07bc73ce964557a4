"""What the shop needs of others. These only print; tests have their own."""

from collections.abc import Mapping


class OutOfStockError(Exception):
    """There is nothing to send, and there won't be."""


class Services:
    async def send_email(self, address: str, template: str, variables: Mapping[str, object]) -> None:
        print(f"email to {address}: {template} {dict(variables)}", flush=True)

    async def pack(self, order_id: int) -> None:
        """Raises OutOfStockError."""
        print(f"order {order_id} is packed", flush=True)

    async def push(self, user_id: int, message: str, *, loud: bool) -> None:
        print(f"to the phone of user {user_id}: {message}{'!' if loud else ''}", flush=True)

    async def delete_key(self, key_id: int) -> None:
        """Raises PermissionError."""
        print(f"key {key_id} is deleted", flush=True)
