"""Every address of the console; the apps below bring their own."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from opendata_ops import datasets, views

urlpatterns = [
    path("", views.today, name="today"),
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("theme/", views.theme, name="theme"),
    path("search/", views.search, name="search"),
    path("datasets/", datasets.datasets, name="datasets"),
    path("datasets/<slug:slug>/", datasets.dataset, name="dataset"),
    path("datasets/<slug:slug>/chart.csv", datasets.dataset_chart, name="dataset_chart"),
    path("datasets/<slug:slug>/chart/", datasets.save_chart, name="save_chart"),
    path("datasets/<slug:slug>/describe/", datasets.describe_dataset, name="describe_dataset"),
    path("audit/", datasets.audit, name="audit"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("statusz", views.statusz, name="statusz"),
    path("admin/", admin.site.urls),
    path("", include("perfmet.urls")),
    path("", include("pipelines.urls")),
    path("", include("catalog.urls")),
]
