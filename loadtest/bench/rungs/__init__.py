"""What `/reco` is measured against: small services for uvicorn. `CONSTANT`: what those answer that compute nothing."""

import json

CONSTANT = json.dumps({"user_id": 40_961, "items": [10_007 + 4_001 * n for n in range(10)]}).encode()
