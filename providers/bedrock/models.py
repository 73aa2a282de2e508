"""Why: Converse is one language, but what lies outside it (thinking, top_k) each house names in its own way.

Only the model's id tells whose it is: `anthropic.claude-...`, with a region in front (`us.`) or within an ARN. An
application inference profile's ARN tells nothing; there only what is Converse's own is said.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-ids.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
"""

import re
from dataclasses import dataclass

_HOUSES = (
    "anthropic", "amazon", "openai", "cohere", "ai21", "mistral", "meta", "qwen", "deepseek", "moonshot",
    "moonshotai", "minimax", "google", "nvidia", "zai", "writer",
)  # fmt: skip
_HOUSE = re.compile(rf"(?:^|[./:])({'|'.join(_HOUSES)})\.")
_NUMBER = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_NEWEST = (99, 0)


@dataclass(frozen=True, slots=True)
class Model:
    """`house` is who made it, empty where the id does not tell; `number` is a Claude's generation.

    `line`: of a Claude's name the middle (`sonnet`), of OpenAI's models only whether they are the open ones.
    """

    house: str
    number: tuple[int, int] = (0, 0)
    line: str = ""

    @property
    def adaptive(self) -> bool:
        """Whether a Claude's thinking takes its own measure, steered by effort, and not a budget of tokens."""
        return self.house == "anthropic" and self.number >= (4, 6)

    @property
    def between_tools(self) -> bool:
        """Whether a Claude's thinking is not turned off by `disabled` but by `between_tools`."""
        return self.house == "anthropic" and self.line == "sonnet" and self.number >= (5, 5)

    @property
    def hides_thinking(self) -> bool:
        """Whether a Claude keeps its thinking to itself unless asked for a summary."""
        return self.house == "anthropic" and self.number >= (4, 7)


def model_of(name: str) -> Model:
    """What is known of the model with this id."""
    name = name.lower()
    found = _HOUSE.search(name)
    if found is None or found[1] != "anthropic":
        return Model(found[1] if found else "", line="gpt-oss" if "gpt-oss" in name else "")
    number = _NUMBER.search(name)
    if number is None:
        return Model("anthropic", _NEWEST)
    return Model("anthropic", (int(number[2]), int(number[3] or 0)), number[1] or "")
