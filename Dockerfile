# The console as a container: `docker build -t opendata_ops:local .`, the image that `run --docker-mode` expects.
# Settings come by --env-file; DATABASE_URL and LAKE_URL should name a server and a bucket, or /app/var a volume.
FROM python:3.11-slim
RUN useradd --create-home ops
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY manage.py ./
COPY opendata_ops opendata_ops
COPY catalog catalog
COPY pipelines pipelines
COPY perfmet perfmet
COPY templates templates
COPY static static
RUN mkdir var && chown ops:ops var
USER ops
EXPOSE 8000
CMD ["python3", "manage.py", "up", "--host", "0.0.0.0"]
