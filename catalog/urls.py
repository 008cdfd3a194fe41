"""Addresses of the lake's pages."""

from django.urls import path

from catalog import views

urlpatterns = [
    path("lake/", views.lake, name="lake"),
    path("lake/<int:pk>/", views.lake_file, name="lake_file"),
    path("lake/<int:pk>/download/", views.lake_download, name="lake_download"),
    path("lake/<int:pk>/check/", views.lake_check, name="lake_check"),
]
