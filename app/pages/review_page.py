"""The Review page: one mount point; the page itself is plain JavaScript served from /static."""

from __future__ import annotations

import gradio as gr

from db.workspace import Workspace

# Static on purpose: gr.HTML runs what is in a template, so no data may ever enter one.
TEMPLATE = '<div class="review-mount"><p>Loading the review page …</p></div>'
ON_LOAD = "import('/static/review.js').then((page) => page.mount(element.querySelector('.review-mount')));"


def review_page(workspace: Workspace) -> None:
    """Add the page to the open ``gr.Blocks`` or ``gr.Tab``.

    It talks to the routes of ``review_router`` and ``media_router`` and needs app/static under ``/static``.
    ``workspace`` is taken for the sake of one signature for all pages: what is shown comes from the routes.
    """
    del workspace
    gr.HTML(
        html_template=TEMPLATE,
        js_on_load=ON_LOAD,
        apply_default_css=False,
        padding=False,
        elem_id="review-page",
    )
