"""What PyPI's standardwebhooks says to deliveries. In: a JSON array of {secret, headers, body (base
64)}. Out: an array of "accepted" or "rejected: why". Ends with 77 where the library is not there."""
import base64
import json
import sys

try:
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError
except ImportError:
    print("a Python that has standardwebhooks is named by MIKOMI_TEST_PYTHON")
    sys.exit(77)


def verdict(case):
    try:
        Webhook(case["secret"]).verify(base64.b64decode(case["body"]).decode(), case["headers"])
        return "accepted"
    except WebhookVerificationError as error:
        return f"rejected: {error}"


print(json.dumps([verdict(case) for case in json.load(sys.stdin)]))
