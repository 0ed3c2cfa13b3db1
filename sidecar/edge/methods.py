"""The paths of the services on the app port. Who only calls them need not load what serves them."""

ADMIN = "/sidecar.admin.AdminService/"
TASKHUB = "/TaskHubSidecarService/"
STATUS = f"{ADMIN}GetStatus"
