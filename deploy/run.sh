#!/usr/bin/env bash
# `make run`: a bundle if there is none yet, a token of this machine's own, the line to try, then the service.
# Environment: DATA (folder or file of interactions; empty: the generated demo), BUILD_ARGS (more flags for
# `reco build`), ARTIFACTS, HOST, PORT, BIN (folder of the programs).
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BIN:-.venv/bin}
artifacts=${ARTIFACTS:-artifacts}
port=${PORT:-8080}
host=${HOST:-127.0.0.1}
mkdir -p "$artifacts"

if [ -n "${DATA:-}" ]; then
  data=$(realpath -- "$DATA")
  name=$(basename -- "$data")
  name=${name%%.*}
  : "${name:=data}"
else
  data=$artifacts/demo-data
  name=demo
  if [ ! -d "$data" ]; then
    # Into a folder beside it first: one interrupted halfway is never taken for a whole one.
    rm -rf "$data.partial"
    "$bin/reco" data generate --users 3000 --items 1500 --interactions 100000 --seed 1 --out "$data.partial"
    mv "$data.partial" "$data"
  fi
fi

bundles=$artifacts/$name
source=$artifacts/$name.source
if [ ! -e "$bundles/current.json" ]; then
  read -r -a options <<<"${BUILD_ARGS:-}"
  "$bin/reco" build --data "$data" --out "$bundles" ${options[@]+"${options[@]}"}
  printf '%s\n' "$data" >"$source"
elif [ "$(cat "$source" 2>/dev/null)" != "$data" ]; then
  echo "make run: $bundles was built from other data ($(cat "$source" 2>/dev/null || echo unknown));" \
    "remove it, or set ARTIFACTS to another folder" >&2
  exit 2
else
  echo "make run: serving what was built before; remove $bundles to build again" >&2
fi

token=$artifacts/demo-token
[ -s "$token" ] || (umask 077 && "$bin/python" -c 'import secrets; print(secrets.token_urlsafe(32))' >"$token")

user=$("$bin/python" - "$bundles" <<'PYTHON'
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import RecoError

try:
    bundle = load_bundle(ArtifactStore(Path(sys.argv[1])).current())
except RecoError as error:
    sys.exit(f"make run: {error}")
events = np.diff(bundle.history_indptr)
print(quote(str(bundle.user_ids.take(np.array([int(events.argmax())]))[0]), safe=""))
PYTHON
)

cat >&2 <<TRY

Serving $bundles on http://$host:$port (Ctrl-C stops it). Try, from this folder:

  curl -H "Authorization: Bearer \$(cat $(printf %q "$token"))" http://127.0.0.1:$port/reco/default/$user

TRY
RECO_TOKENS="demo:$(cat "$token")" exec "$bin/reco" serve --artifacts "$bundles" --host "$host" --port "$port"
