# The serving image: `service` and what it imports. No compiler, no package manager of ours, no training code.

FROM python:3.11-slim AS builder
# Debian keeps only the newest patch of g++, so a pinned version would break the build within weeks; nothing of
# this stage but compiled code reaches the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/builder.txt requirements/serve.txt requirements/
RUN pip install --require-hashes --requirement requirements/builder.txt
# Without it hnswlib is compiled for the building machine's processor, and dies of SIGILL on an older one.
ENV HNSWLIB_NO_NATIVE=1
RUN pip wheel --require-hashes --no-build-isolation --requirement requirements/serve.txt --wheel-dir /wheels
# Only `service` is copied, so the wheel holds only `service`; `reco` hides the commands of rooms that are not here.
COPY pyproject.toml README.md hatch_build.py ./
COPY service/ service/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/reco \
    && pip --python /opt/reco/bin/python install --no-index --no-deps /wheels/*.whl \
    && /opt/reco/bin/python -m compileall -q /opt/reco/lib


FROM python:3.11-slim
LABEL org.opencontainers.image.title="reco-service" \
      org.opencontainers.image.description="Recommendations inside a time budget, from verified bundles"
RUN groupadd --gid 10001 reco \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin reco
COPY --from=builder /opt/reco /opt/reco
# /dev/shm is a tmpfs in every container, also in one whose root is read-only.
ENV PATH=/opt/reco/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/dev/shm \
    RECO_ARTIFACTS=/artifacts \
    HOST=0.0.0.0 \
    PORT=8080
USER 10001:10001
WORKDIR /artifacts
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health/ready', timeout=2)"]
CMD ["reco", "serve"]
