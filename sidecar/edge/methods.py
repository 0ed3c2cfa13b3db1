"""The paths of the services on the app port. Who only calls them need not load what serves them."""

ADMIN = "/sidecar.admin.AdminService/"
CLIENT_API = "/dapr.proto.runtime.v1.Dapr/"
TASKHUB = "/TaskHubSidecarService/"
STATUS = f"{ADMIN}GetStatus"
