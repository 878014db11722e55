"""The Accounts page, for admins: who may do what, and who did how much. static/accounts.js fills it from the routes."""

from __future__ import annotations

import gradio as gr

from app.pages.shared import heading

# Static on purpose: gr.HTML runs what is in a template, and passwords must not go through Gradio's queue.
TEMPLATE = '<div class="accounts-mount"><p class="aside">Loading the accounts …</p></div>'
ON_LOAD = "import('/static/accounts.js').then((page) => page.mount(element.querySelector('.accounts-mount')));"


def accounts_page() -> None:
    """Add the page to the open tab. It talks to ``account_router``."""
    heading("Accounts", "Who may sign in, in which role, and how much each has judged.")
    gr.HTML(
        html_template=TEMPLATE,
        js_on_load=ON_LOAD,
        apply_default_css=False,
        padding=False,
        elem_id="accounts-page",
    )
