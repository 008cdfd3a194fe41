"""The real CKAN is at hand for every test of this folder."""

from tests.ckan.real import ckan_server, real_ckan  # noqa: F401  fixtures
