"""A page that is plain JavaScript from app/static talking to the application's own routes."""

from __future__ import annotations

import gradio as gr

from app.pages.shared import heading


def scripted_page(name: str, title: str, text: str) -> None:
    """Add a page to the open tab: its heading, and a place that ``/static/{name}.js`` fills.

    The three are constants of the code: gr.HTML runs what is in a template, so no data may ever enter one.
    """
    heading(title, text)
    gr.HTML(
        html_template=f'<div class="{name}-mount"><p class="aside">Loading …</p></div>',
        js_on_load=f"import('/static/{name}.js').then((page) => page.mount(element.querySelector('.{name}-mount')));",
        apply_default_css=False,
        padding=False,
        elem_id=f"{name}-page",
    )
