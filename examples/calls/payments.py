"""What is called; it knows nothing of tasks."""


class Payments:
    def charge(self, order: int, card: str) -> str:
        if not card.isdigit():
            raise ValueError(f"{card!r} is no card")
        return f"order {order} is paid by …{card[-4:]}"
