"""Addresses of the pages of the lake, of boundary layers and of the inventory."""

from django.urls import path

from catalog import views

urlpatterns = [
    path("lake/", views.lake, name="lake"),
    path("lake/<int:pk>/", views.lake_file, name="lake_file"),
    path("lake/<int:pk>/download/", views.lake_download, name="lake_download"),
    path("lake/<int:pk>/check/", views.lake_check, name="lake_check"),
    path("boundaries/", views.boundaries, name="boundaries"),
    path("boundaries/<slug:slug>/", views.boundary, name="boundary"),
    path("boundaries/<slug:slug>/areas.geojson", views.boundary_file, name="boundary_file"),
    path("inventory/", views.inventories, name="inventories"),
    path("inventory/upload/", views.inventory_upload, name="inventory_upload"),
    path("inventory/of/<slug:code>/", views.inventory_edition, name="inventory"),
]
