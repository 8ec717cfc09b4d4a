# The exporter in an environment of its own. Nothing gets in but what .dockerignore lets through.

FROM docker.io/library/python:3.13-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.txt requirements-build.txt ./
RUN python -m venv --without-pip /opt/exporter \
    && python -m pip --python /opt/exporter install --require-hashes -r requirements.txt \
    && python -m pip install --require-hashes --target tools -r requirements-build.txt \
    # Packages bring their tests along, and headers to compile against: nobody runs them here.
    && find /opt/exporter/lib \( -name tests -o -name include \) -type d -prune -exec rm -r {} +
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN PYTHONPATH=tools python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/exporter install --no-deps --no-index dist/*.whl
COPY deploy/docker/healthy.py /opt/exporter/

FROM docker.io/library/python:3.13-slim
LABEL org.opencontainers.image.title="thousandeyes-exporter" \
    org.opencontainers.image.description="Prometheus exporter for the user sessions of Cisco ThousandEyes endpoint agents" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/thousandeyes-exporter/thousandeyes-exporter" \
    org.opencontainers.image.documentation="https://github.com/thousandeyes-exporter/thousandeyes-exporter/blob/main/docs/docker.md"
# Nothing is ever installed into a running container, and nobody becomes somebody else there.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /opt/exporter /opt/exporter
ENV PATH=/opt/exporter/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 9350
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "/opt/exporter/healthy.py"]
ENTRYPOINT ["thousandeyes-exporter"]
