"""Why: Bedrock speaks Converse, one language for the models of many houses, signed as AWS signs and framed in binary.

What Converse has no field for is refused by name, or goes into a top-level object named after the provider, which
is merged into the request: `{"bedrock": {"guardrailConfig": {...}, "additionalModelRequestFields": {"k": 5}}}`. Its
field `lenient` is ours (true: drop what cannot be said). A message part named after a Converse block, such as
`{"type": "guardContent", "guardContent": {...}}`, passes as that block.

botocore signs and reads the frames; it is imported where that is first needed, and comes with the extra `bedrock`.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from .signing import Keys, SigV4
from .wire import BedrockWire

__all__ = ["BedrockWire", "Keys", "SigV4"]
