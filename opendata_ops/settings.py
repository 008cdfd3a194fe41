"""Every setting of Open Data Ops, in one file.

Nothing needs to be set on a laptop. A city sets what it must through the environment or a `.env` file;
`.env.example` lists every name (a test keeps it true).
"""

import json
import re
import secrets
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from opendata_ops import bootstrap, database

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = environ.Env()
if (BASE_DIR / ".env").exists():
    env.read_env(str(BASE_DIR / ".env"))


def env_bool(name: str, default: bool) -> bool:
    """Only words that plainly mean yes or no: `DEBUG=flase` must not switch anything on."""
    value = env.str(name, "").strip().lower()
    if value in ("", None):
        return default
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither yes nor no. Use true or false.")


def env_count(name: str, default: int) -> int:
    """A whole number of at least 1, or a sentence that names the variable."""
    value = env.str(name, "").strip() or str(default)
    if not value.isdecimal() or int(value) < 1:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number of at least 1.")
    return int(value)


def env_numbers(name: str, known: dict[str, float]) -> dict[str, float]:
    """Numbers by name, `low=0.4,high=2.5`, over what holds where nothing is said, or a sentence that names what is wrong."""
    given = env.dict(name, default={})
    if strangers := sorted(given.keys() - known.keys()):
        raise ImproperlyConfigured(f"{name} names {', '.join(strangers)}. It knows: {', '.join(known)}.")
    for key, value in given.items():
        if not re.fullmatch(r"\d+(\.\d+)?", value.strip()):
            raise ImproperlyConfigured(f"{name}: {key}={value!r} is not a number of 0 or more.")
    return {**known, **{key: float(value) for key, value in given.items()}}


def kept_secret(name: str, make) -> str:
    """A secret from the environment; else one made once and kept in var/, readable by its owner alone."""
    value = env.str(name, "")
    if value:
        return value
    path = VAR_DIR / "secrets" / name.lower()
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        bootstrap.var_folder(BASE_DIR)
        bootstrap.folder_of_ours(path.parent, 0o700)
        fresh = path.with_suffix(f".{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_text(make())
        bootstrap.keep_owner(fresh)
        try:
            # link, not rename: of two processes that start at once the first one's key stays
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        return path.read_text().strip()


def fernet_key() -> str:
    """A fresh Fernet key, url-safe base64."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


# the city
CITY_NAME = env.str("CITY_NAME", "My city")
ENVIRONMENT = env.str("ENVIRONMENT", "local")  # a word for the top bar; "prod" also asks for a reason on every action
TIME_ZONE = env.str("TIME_ZONE", "America/Chicago")
USE_TZ = True
LANGUAGE_CODE = "en-us"
USE_I18N = False

# safety
DEBUG = env_bool("DEBUG", False)
SECRET_KEY = kept_secret("SECRET_KEY", lambda: secrets.token_urlsafe(64))
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
#: The first key encrypts stored secrets, every key decrypts; `manage.py rotate_keys` re-encrypts.
FERNET_KEYS = [key.strip() for key in kept_secret("FERNET_KEYS", fernet_key).split(",") if key.strip()]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", "testserver"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
#: True behind TLS, which is every real installation; `demo` and `up` on a loopback address turn it off.
HTTPS_ONLY = env_bool("HTTPS_ONLY", not DEBUG)
SECURE_SSL_REDIRECT = HTTPS_ONLY
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env_bool("BEHIND_PROXY", False) else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS_ONLY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS_ONLY
SECURE_HSTS_PRELOAD = HTTPS_ONLY
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = HTTPS_ONLY
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 8 * 3600
CSRF_COOKIE_SECURE = HTTPS_ONLY
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
        "base-uri": [NONE],
    }
}
#: Slack-compatible webhooks that upkeep jobs tell their findings: in production (ENVIRONMENT=prod) where a job names none of its own,
#: and elsewhere in place of whatever a job names.
NOTICE_WEBHOOK = env.str("NOTICE_WEBHOOK", "")
NOTICE_WEBHOOK_TEST = env.str("NOTICE_WEBHOOK_TEST", "")
#: Host names, host:port or CIDRs that connectors may reach although they are private addresses.
OUTBOUND_ALLOW = env.list("OUTBOUND_ALLOW", default=[])
if (VAR_DIR / "practice.json").exists():
    # the practice city of `demo` is made of servers on this machine: commands in another terminal may reach them too
    _practice = json.loads((VAR_DIR / "practice.json").read_text())
    OUTBOUND_ALLOW += [f"127.0.0.1:{_practice['port'] + place}" for place in range(_practice.get("ports", 3))]

# the program
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "csp",
    "django_htmx",
    "django_q",
    "catalog",
    "pipelines",
    "perfmet",
    "opendata_ops",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "opendata_ops.middleware.PrivatePagesMiddleware",
]
ROOT_URLCONF = "opendata_ops.urls"
WSGI_APPLICATION = "opendata_ops.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "opendata_ops.context.shell",
            ],
        },
    }
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "today"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = BASE_DIR / "var" / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage" if DEBUG else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# the database: a server of ours, or the embedded one
DATABASE_URL = env.str("DATABASE_URL", "") or database.url(start=False)
DATABASES = {"default": env.db_url_config(DATABASE_URL)}
DATABASES["default"]["CONN_MAX_AGE"] = 60
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"].setdefault("OPTIONS", {}).update(application_name="opendata_ops", connect_timeout=10)

#: Where city data is loaded, by alias: postgres:// or mysql:// addresses. "default" is the control database unless WAREHOUSE_URL says
#: otherwise; others come as WAREHOUSES=pets=mysql://user:password@host:3306/db,reports=postgres://… (signs like , and = percent-encoded).
WAREHOUSES = {"default": env.str("WAREHOUSE_URL", "") or DATABASE_URL, **env.dict("WAREHOUSES", default={})}
#: The lake: a folder, or s3://bucket/prefix (credentials and AWS_ENDPOINT_URL as boto3 reads them).
LAKE_URL = env.str("LAKE_URL", "") or str(VAR_DIR / "lake")

# how blocks are worked off
WORK_DIR = VAR_DIR / "work"  # files on their way into the lake; emptied after each run
LEASE_SECONDS = 15  # a worker that says nothing for so long has lost its block
HEARTBEAT_SECONDS = 1
STAGE_MEMORY_MB = env_count("STAGE_MEMORY_MB", 2048)
#: A block whose source says for so long that it is not ready fails: every state that is not final has a deadline.
NOT_READY_DAYS = env_count("NOT_READY_DAYS", 7)
WORKERS = env_count("WORKERS", 2)
LOAD_CONNECTIONS = env_count("LOAD_CONNECTIONS", 2)  # sessions that fill a new table at once
MAX_STAGE_SECONDS = 210 * 60  # a pipeline's own deadline may be shorter, never longer
PLAN_HORIZON_DAYS = 35  # how far back the tick looks for owed blocks


# how sensors are judged; a watch may differ
#: `low` and `high`: shares of the expected value; `hours`: how many of a day a sensor has to cover; `days`: how many must be known before
#: anything is usual; `least`: under so many expected nothing is low or high; `late`: hours after its block is due that a day is called stale.
SENSOR_THRESHOLDS = env_numbers("SENSOR_THRESHOLDS", {"low": 0.5, "high": 1.8, "hours": 18, "days": 3, "least": 20, "late": 3})


# how datasets are judged: a file with the words, a line each, of which the names of columns should be made. Empty: English ones
QUALITY_WORDS = env.str("QUALITY_WORDS", "")


def queue(url: str) -> dict:
    """django-q2's broker: the control database, or redis://… / sqs://region?queue_region=… by one setting."""
    scheme = urlsplit(url).scheme
    if not url:
        return {"orm": "default"}
    if scheme in ("redis", "rediss"):
        return {"redis": url}
    if scheme == "sqs":
        return {"sqs": {"aws_region": urlsplit(url).netloc, **{k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}}}
    raise ImproperlyConfigured(f"QUEUE_URL={url!r}: use redis://… or sqs://region, or leave it empty for the database.")


# The queue is a doorbell: it carries block numbers, and answers twice without harm. The safe figures were measured; checks.py refuses others.
Q_CLUSTER = {
    "name": "ops",
    **queue(env.str("QUEUE_URL", "")),
    "workers": WORKERS,
    "queue_limit": WORKERS,
    "bulk": 1,
    "poll": 0.5,
    # the stage has a deadline of its own; these only have to be longer, and SQS hides a message for 12 hours at most
    "timeout": MAX_STAGE_SECONDS + 600,
    "retry": 3 * (MAX_STAGE_SECONDS + 900),
    "max_attempts": 1,
    "ack_failures": True,
    "catch_up": False,
    "recycle": 500,
    "save_limit": -1,  # our Run rows are the record; django-q2's would be read back as pickles
    "scheduler": False,
    "label": "Queue (internal)",
    "ALT_CLUSTERS": {},
}

# logs: one JSON line an event on stderr, with the run id where there is one
LOG_LEVEL = env.str("LOG_LEVEL", "INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"redact": {"()": "pipelines.secrets.RedactFilter"}},
    "formatters": {"json": {"()": "opendata_ops.logs.json_formatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["redact"]}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "opendata_ops": {"level": LOG_LEVEL},
        "pipelines": {"level": LOG_LEVEL},
        "catalog": {"level": LOG_LEVEL},
        "perfmet": {"level": LOG_LEVEL},
        "django-q": {"level": "WARNING"},
    },
}
