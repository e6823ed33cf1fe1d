//! Colours, sizes and distances: a quiet page, one accent, text that can be read for long.

use eframe::egui::{
    Color32, Context, CornerRadius, FontFamily, FontId, Frame, Margin, Stroke, Style, TextStyle, Theme,
    ThemePreference, Visuals, style::WidgetVisuals, vec2,
};

use crate::settings;

/// The widest that text gets: about 80 letters.
pub(super) const COLUMN: f32 = 720.0;

/// The colours of a theme.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    /// Behind the conversation.
    pub(super) page: Color32,
    /// Behind lists and meters.
    pub(super) side: Color32,
    /// Behind a message, a model, a meter.
    pub(super) card: Color32,
    /// Behind buttons.
    pub(super) button: Color32,
    /// Lines.
    pub(super) line: Color32,
    /// Text.
    pub(super) text: Color32,
    /// Text that matters more.
    pub(super) strong: Color32,
    /// Text that matters less.
    pub(super) weak: Color32,
    /// What to press, and what moves.
    pub(super) accent: Color32,
    /// Text on the accent.
    pub(super) on_accent: Color32,
    /// It is well.
    pub(super) good: Color32,
    /// Look here.
    pub(super) warn: Color32,
    /// It failed.
    pub(super) bad: Color32,
}

const DARK: Palette = Palette {
    page: Color32::from_rgb(0x16, 0x18, 0x1d),
    side: Color32::from_rgb(0x1b, 0x1e, 0x24),
    card: Color32::from_rgb(0x23, 0x27, 0x2f),
    button: Color32::from_rgb(0x2c, 0x31, 0x3b),
    line: Color32::from_rgb(0x34, 0x39, 0x43),
    text: Color32::from_rgb(0xd9, 0xdc, 0xe3),
    strong: Color32::from_rgb(0xff, 0xff, 0xff),
    weak: Color32::from_rgb(0x9b, 0xa3, 0xb0),
    accent: Color32::from_rgb(0x6f, 0xa8, 0xff),
    on_accent: Color32::from_rgb(0x0d, 0x15, 0x24),
    good: Color32::from_rgb(0x5f, 0xc9, 0x8c),
    warn: Color32::from_rgb(0xe8, 0xb3, 0x4b),
    bad: Color32::from_rgb(0xf2, 0x7d, 0x72),
};

const LIGHT: Palette = Palette {
    page: Color32::from_rgb(0xff, 0xff, 0xff),
    side: Color32::from_rgb(0xf5, 0xf6, 0xf8),
    card: Color32::from_rgb(0xed, 0xf0, 0xf5),
    button: Color32::from_rgb(0xe4, 0xe8, 0xef),
    line: Color32::from_rgb(0xd5, 0xda, 0xe2),
    text: Color32::from_rgb(0x26, 0x2b, 0x33),
    strong: Color32::from_rgb(0x00, 0x00, 0x00),
    weak: Color32::from_rgb(0x5d, 0x66, 0x74),
    accent: Color32::from_rgb(0x1f, 0x5f, 0xd6),
    on_accent: Color32::from_rgb(0xff, 0xff, 0xff),
    good: Color32::from_rgb(0x1b, 0x7f, 0x4b),
    warn: Color32::from_rgb(0x96, 0x62, 0x00),
    bad: Color32::from_rgb(0xb8, 0x2c, 0x20),
};

/// The palette of the theme that is shown.
pub(super) fn palette(ctx: &Context) -> Palette {
    if ctx.theme() == Theme::Dark { DARK } else { LIGHT }
}

/// Dresses the window.
pub fn dress(ctx: &Context) {
    for (theme, palette) in [(Theme::Dark, DARK), (Theme::Light, LIGHT)] {
        ctx.style_mut_of(theme, |style| dress_style(style, palette));
    }
}

/// Light, dark, or as the system.
pub(super) fn choose(ctx: &Context, theme: settings::Theme) {
    ctx.set_theme(match theme {
        settings::Theme::System => ThemePreference::System,
        settings::Theme::Light => ThemePreference::Light,
        settings::Theme::Dark => ThemePreference::Dark,
    });
}

/// Around a message, a model, a meter.
pub(super) fn card(palette: Palette) -> Frame {
    Frame::new()
        .fill(palette.card)
        .corner_radius(CornerRadius::same(10))
        .inner_margin(Margin::symmetric(14, 10))
}

fn dress_style(style: &mut Style, palette: Palette) {
    let proportional = |size| FontId::new(size, FontFamily::Proportional);
    style.text_styles = [
        (TextStyle::Small, proportional(12.0)),
        (TextStyle::Body, proportional(14.5)),
        (TextStyle::Button, proportional(14.0)),
        (TextStyle::Heading, proportional(21.0)),
        (TextStyle::Monospace, FontId::new(13.0, FontFamily::Monospace)),
    ]
    .into();
    let spacing = &mut style.spacing;
    spacing.item_spacing = vec2(8.0, 7.0);
    spacing.button_padding = vec2(10.0, 5.0);
    spacing.interact_size.y = 26.0;
    spacing.slider_width = 130.0;
    spacing.combo_width = 130.0;
    spacing.tooltip_width = 360.0;
    let dark = palette.page.r() < 128;
    let mut visuals = if dark { Visuals::dark() } else { Visuals::light() };
    visuals.panel_fill = palette.page;
    visuals.window_fill = palette.side;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CornerRadius::same(12);
    visuals.menu_corner_radius = CornerRadius::same(8);
    visuals.extreme_bg_color = if dark { Color32::from_rgb(0x10, 0x12, 0x16) } else { Color32::WHITE };
    visuals.text_edit_bg_color =
        Some(if dark { Color32::from_rgb(0x10, 0x12, 0x16) } else { palette.button });
    visuals.faint_bg_color = palette.side;
    visuals.code_bg_color = palette.card;
    visuals.hyperlink_color = palette.accent;
    visuals.warn_fg_color = palette.warn;
    visuals.error_fg_color = palette.bad;
    visuals.weak_text_color = Some(palette.weak);
    visuals.slider_trailing_fill = true;
    visuals.selection.bg_fill = palette.accent.gamma_multiply(if dark { 0.35 } else { 0.25 });
    visuals.selection.stroke = Stroke::new(1.0, palette.strong);
    let widget = |fill: Color32, line: Color32, text: Color32| WidgetVisuals {
        bg_fill: fill,
        weak_bg_fill: fill,
        bg_stroke: Stroke::new(1.0, line),
        corner_radius: CornerRadius::same(7),
        fg_stroke: Stroke::new(1.0, text),
        expansion: 0.0,
    };
    let widgets = &mut visuals.widgets;
    widgets.noninteractive = widget(palette.card, palette.line, palette.text);
    widgets.inactive = widget(palette.button, Color32::TRANSPARENT, palette.text);
    widgets.hovered = widget(palette.button, palette.accent.gamma_multiply(0.7), palette.strong);
    widgets.active = widget(palette.button, palette.accent, palette.strong);
    widgets.open = widget(palette.button, palette.line, palette.strong);
    style.visuals = visuals;
}
