"""The look that Gradio's own controls get. Everything else is in static/app.css, with the same colours."""

from __future__ import annotations

import gradio as gr

TITLE = "ImageNet-Bg builder"

# Links, not inlined text: the browser keeps them, and they are there before the first paint.
HEAD = (
    '<link rel="icon" href="data:,">'
    '<link rel="stylesheet" href="/static/app.css">'
    '<link rel="stylesheet" href="/static/accounts.css">'
    '<link rel="stylesheet" href="/static/judging.css">'
    '<link rel="stylesheet" href="/static/build.css">'
    '<link rel="stylesheet" href="/static/method.css">'
    '<script src="/static/theme.js"></script>'
    '<script type="module" src="/static/app.js"></script>'
    '<script type="module" src="/static/session.js"></script>'
)

ACCENT = gr.themes.Color(
    name="accent",
    c50="#f0f6fb",
    c100="#e3eef7",
    c200="#c2dbee",
    c300="#9ecbf0",
    c400="#7db8ea",
    c500="#2f80bf",
    c600="#0b63a5",
    c700="#09538b",
    c800="#0a4370",
    c900="#1b3246",
    c950="#13232f",
)
NEUTRAL = gr.themes.Color(
    name="neutral",
    c50="#f6f7f8",
    c100="#eceff1",
    c200="#d5dade",
    c300="#b9c1c7",
    c400="#a3b0b8",
    c500="#6b7881",
    c600="#56636b",
    c700="#38434a",
    c800="#1f262b",
    c900="#1b2126",
    c950="#161b1f",
)


def make_theme() -> gr.themes.Base:
    """Calm greys, one blue, and the machine's own fonts: nothing is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=NEUTRAL,
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="#f6f7f8",
        body_background_fill_dark="#161b1f",
        body_text_color="#1c2429",
        body_text_color_dark="#e4e9ec",
        body_text_color_subdued="#56636b",
        body_text_color_subdued_dark="#a3b0b8",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1f262b",
        background_fill_secondary="#f6f7f8",
        background_fill_secondary_dark="#161b1f",
        border_color_primary="#d5dade",
        border_color_primary_dark="#38434a",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_padding="0px",
        block_shadow="none",
        block_label_text_color="#56636b",
        block_label_text_color_dark="#a3b0b8",
        block_title_text_color="#1c2429",
        block_title_text_color_dark="#e4e9ec",
        block_title_text_weight="550",
        block_info_text_color="#56636b",
        block_info_text_color_dark="#a3b0b8",
        input_background_fill="#ffffff",
        input_background_fill_dark="#161b1f",
        input_border_color="#98a3ab",
        input_border_color_dark="#5d6a73",
        input_border_color_focus="#0b63a5",
        input_border_color_focus_dark="#7db8ea",
        input_border_width="1px",
        input_placeholder_color="#6b7881",
        input_placeholder_color_dark="#8a97a0",
        checkbox_border_color="#6b7881",
        checkbox_border_color_dark="#8a97a0",
        checkbox_background_color_selected="#0b63a5",
        checkbox_background_color_selected_dark="#2f80bf",
        button_primary_background_fill="#0b63a5",
        button_primary_background_fill_dark="#7db8ea",
        button_primary_background_fill_hover="#09538b",
        button_primary_background_fill_hover_dark="#9ecbf0",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#12202b",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#2a3339",
        button_secondary_background_fill_hover="#eceff1",
        button_secondary_background_fill_hover_dark="#38434a",
        button_secondary_border_color="#98a3ab",
        button_secondary_border_color_dark="#5d6a73",
        button_border_width="1px",
        button_large_text_size="14px",
        button_large_text_weight="550",
        button_large_padding="8px 16px",
        button_secondary_text_color="#1c2429",
        button_secondary_text_color_dark="#e4e9ec",
    )
