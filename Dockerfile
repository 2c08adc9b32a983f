# One image for every service of docker-compose.yaml: Airflow, the DAGs and what the tasks need, training included.
FROM python:3.11-slim-bookworm

# g++: DeepSpeed compiles one small operator at the first distributed run.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 50000 --shell /usr/sbin/nologin airflow \
    && install --directory --owner airflow /opt/airflow /opt/airflow/logs /opt/llmcoder /var/lib/llmcoder

WORKDIR /opt/llmcoder

# The packages change less often than the code: they are a layer of their own. The same pin of torch takes the build with CUDA or
# without it, whichever the index offers first; `--build-arg TORCH_INDEX=...` names another index.
ARG TORCH_INDEX=""
COPY constraints.txt pyproject.toml README.md ./
RUN mkdir llmcoder_tasks && touch llmcoder_tasks/__init__.py \
    && pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --editable '.[production]'

COPY --chown=airflow llmcoder_tasks ./llmcoder_tasks
COPY --chown=airflow sql ./sql
COPY --chown=airflow dags ./dags
COPY --chown=airflow plugins ./plugins

ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/llmcoder/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/llmcoder/plugins \
    LLMCODER_HOME=/var/lib/llmcoder \
    PYTHONPATH=/opt/llmcoder \
    PYTHONUNBUFFERED=1

USER airflow
ENTRYPOINT ["tini", "--", "airflow"]
CMD ["version"]
