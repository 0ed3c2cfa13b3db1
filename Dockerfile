# syntax=docker/dockerfile:1
# The sidecar. Give a digest for a build that can be repeated to the byte:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:… .
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# --- a wheel of this project, built with locked tools ----------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY sidecar ./sidecar
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# --- an environment with exactly what the lock says, and that wheel --------------------------------------------------
FROM ${PYTHON_IMAGE} AS environment
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/sidecar \
    && pip --python /opt/sidecar install --no-cache-dir --require-hashes -r requirements.lock
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/sidecar install --no-cache-dir --no-deps --no-index /wheels/*.whl

# --- what runs -------------------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="multi-app workflow sidecar" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.description="Durable workflows that span several apps, for unchanged durabletask SDKs" \
      org.opencontainers.image.licenses="Apache-2.0"
# The places that are written to (/certs by `sidecar dev-ca` alone); a new named volume takes over their owner.
RUN install -d -o 65532 -g 65532 -m 0700 /data /certs
# The standard library comes without its compiled form here, and the user cannot write it: each start would compile it.
RUN python -m compileall -q -x '/(site-packages|test|tests|idlelib|lib2to3|tkinter|turtledemo)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=environment /opt/sidecar /opt/sidecar
ENV PATH=/opt/sidecar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    SIDECAR_DATA_DIR=/data \
    SIDECAR_LOG_FORMAT=json
USER 65532:65532
WORKDIR /data
VOLUME /data
# 50001 and 4001: apps. 3500: health. 50002: other sidecars. All on loopback unless told otherwise.
EXPOSE 50001 4001 3500 50002
STOPSIGNAL SIGTERM
# Under load an answer may take seconds: a sidecar that is only slow is not unhealthy.
HEALTHCHECK --interval=5s --timeout=10s --start-period=30s --retries=5 CMD ["sidecar", "health"]
ENTRYPOINT ["sidecar"]
CMD ["run"]
