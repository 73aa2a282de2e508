"""Why: Claude speaks Messages, which is its own language: blocks in turns, thinking with signatures, exact usage.

The version sent is 2023-06-01: the newer one differs in this wire only by taking `temperature`, `top_p` and `top_k`
away. Fields that have no place there are refused by name; whatever OpenAI has no field for goes into a top-level
object named after the provider, which is merged into the request: `{"anthropic": {"container": "c_1"}}`. Two of its
fields are ours: `betas` (a list, sent as the header `anthropic-beta`) and `lenient` (true: drop what cannot be said).

Source: https://platform.claude.com/docs/en/api/messages
"""

from .wire import AnthropicWire

__all__ = ["AnthropicWire"]
