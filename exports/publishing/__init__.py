"""Publishing an archive: what would be sent, sending it, and looking whether it arrived."""

from exports.publishing.plan import PublishError, UploadPlan, plan_upload
from exports.publishing.sending import Published, publish, verify

__all__ = ["PublishError", "Published", "UploadPlan", "plan_upload", "publish", "verify"]
