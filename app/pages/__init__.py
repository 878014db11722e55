"""The pages, one module each, put together into one Gradio application."""

from __future__ import annotations

import gradio as gr

from app.accounts.access import page_role
from app.pages.accounts_page import accounts_page
from app.pages.adjudication_page import adjudication_page
from app.pages.agreement_page import agreement_page
from app.pages.audit_page import audit_page
from app.pages.build_page import build_page
from app.pages.duplicates_page import duplicates_page
from app.pages.evaluate_page import evaluate_page
from app.pages.export_page import export_page
from app.pages.generate_page import generate_page
from app.pages.overview_page import overview_page
from app.pages.review_page import review_page
from app.pages.shared import QUIET
from app.pages.sources_page import sources_page
from app.pages.train_page import train_page
from app.pages.triage_page import triage_page
from app.theme import TITLE
from db.models import Role
from db.workspace import Workspace
from review.roles import may

# static/theme.js makes it work: a sun, a moon, and a disc that is half of each for what the system says.
COLOURS = (
    '<div class="theme-switch" role="group" aria-label="Colours">'
    '<button type="button" data-theme="light" aria-label="Light" title="Light"><svg viewBox="0 0 16 16">'
    '<circle cx="8" cy="8" r="3"/><path d="M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.5 1.5M11.5 11.5L13 13M3 13l1.5-1.5'
    'M11.5 4.5L13 3"/></svg></button>'
    '<button type="button" data-theme="dark" aria-label="Dark" title="Dark"><svg viewBox="0 0 16 16">'
    '<path d="M13.5 10A6 6 0 0 1 6 2.5 6 6 0 1 0 13.5 10z"/></svg></button>'
    '<button type="button" data-theme="auto" aria-label="As the system" title="As the system">'
    '<svg viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5"/><path d="M8 2.5v11a5.5 5.5 0 0 0 0-11z" class="filled"/>'
    "</svg></button></div>"
)
# static/session.js puts the name in and shows it; a server without accounts has nobody to sign out.
ACCOUNT = (
    '<form class="account" method="post" action="/sign-out" hidden>'
    '<a href="/password" title="Change your password"></a>'
    '<button type="submit">Sign out</button></form>'
)


def build_pages(workspace: Workspace, role: Role = Role.ADMIN) -> gr.Blocks:
    """The pages of a role as tabs, opened by the links in the header (static/app.js).

    Nothing is read before a browser asks.
    """
    pages = {
        "overview": ("Overview", lambda: overview_page(workspace)),
        "sources": ("Sources", lambda: sources_page(workspace)),
        "generate": ("Generate", lambda: generate_page(workspace)),
        "review": ("Review", lambda: review_page(workspace)),
        "duplicates": ("Duplicates", duplicates_page),
        "adjudication": ("Adjudication", adjudication_page),
        "agreement": ("Agreement", agreement_page),
        "triage": ("Triage", triage_page),
        "audit": ("Audit", audit_page),
        "build": ("Build", build_page),
        "export": ("Export", export_page),
        "train": ("Train", train_page),
        "evaluate": ("Evaluate", evaluate_page),
        "accounts": ("Accounts", accounts_page),
    }
    pages = {name: page for name, page in pages.items() if may(role, page_role(name))}
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as demo:
        links = "".join(f'<a href="#{name}" data-label="{label}">{label}</a>' for name, (label, _) in pages.items())
        gr.HTML(
            f'<header class="site-head"><h1 class="site-title">{TITLE}</h1>'
            f'<nav aria-label="Pages">{links}</nav>{COLOURS}{ACCOUNT}</header>',
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
