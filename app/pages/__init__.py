"""The pages, one module each, put together into one Gradio application."""

from __future__ import annotations

import gradio as gr

from app.pages.build_page import build_page
from app.pages.export_page import export_page
from app.pages.generate_page import generate_page
from app.pages.overview_page import overview_page
from app.pages.review_page import review_page
from app.pages.shared import QUIET
from app.pages.sources_page import sources_page
from app.theme import TITLE
from db.workspace import Workspace


def build_pages(workspace: Workspace, user_id: int) -> gr.Blocks:
    """All pages as tabs, opened by the links in the header (static/app.js). Nothing is read before a browser asks.

    ``user_id`` is whose review the overview speaks of.
    """
    pages = {
        "overview": ("Overview", lambda: overview_page(workspace, user_id)),
        "sources": ("Sources", lambda: sources_page(workspace)),
        "generate": ("Generate", lambda: generate_page(workspace)),
        "review": ("Review", lambda: review_page(workspace)),
        "build": ("Build", lambda: build_page(workspace)),
        "export": ("Export", lambda: export_page(workspace)),
    }
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as demo:
        links = "".join(f'<a href="#{name}" data-label="{label}">{label}</a>' for name, (label, _) in pages.items())
        gr.HTML(
            f'<header class="site-head"><h1 class="site-title">{TITLE}</h1>'
            f'<nav aria-label="Pages">{links}</nav></header>',
            apply_default_css=False,
            padding=False,
        )
        with gr.Tabs(elem_id="pages"):
            for name, (label, add) in pages.items():
                with gr.Tab(label, id=name, elem_id=f"page-{name}") as tab:
                    page = add()
                if page is None:
                    continue
                tab.select(page.refresh, list(page.inputs), list(page.outputs), **QUIET)
                if page.load is not None:
                    demo.load(page.load, None, list(page.load_outputs), **QUIET)
                if name == "overview":
                    demo.load(page.refresh, None, list(page.outputs), **QUIET)
    return demo
