# syntax=docker/dockerfile:1
# The example apps, with one of the workflow SDKs: --build-arg SDK=dapr or SDK=microsoft.
# Build it from the root of the repository: docker build --file docker/Dockerfile.app .
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS environment
ARG SDK=dapr
WORKDIR /src
COPY tests/blackbox/requirements-${SDK}.lock ./requirements.lock
RUN python -m venv --without-pip /opt/app \
    && pip --python /opt/app install --no-cache-dir --require-hashes -r requirements.lock

FROM ${PYTHON_IMAGE}
# The notes of all apps of the example go here: a volume that they share.
RUN install -d -o 65532 -g 65532 -m 0700 /story
COPY --from=environment /opt/app /opt/app
COPY examples /examples
ENV PATH=/opt/app/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /examples
VOLUME /story
# An app only calls its sidecar: there is nothing to ask it.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m"]
CMD ["orders.app"]
