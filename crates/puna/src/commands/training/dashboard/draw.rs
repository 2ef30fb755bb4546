//! The picture of a run, for a terminal of any size.

use puna_recipes::TimeSpan;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};

use super::view::View;

/// From here on there is room for texts and events, and for figures beside the curve.
const WIDE: (u16, u16) = (60, 18);

/// Draws the whole picture.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, is_stopping: bool) {
    let area = frame.area();
    let [head, progress, body] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(0)])
            .areas(area);
    draw_head(frame, head, view, is_stopping);
    draw_progress(frame, progress, view);
    if area.width < WIDE.0 || area.height < WIDE.1 {
        return draw_small(frame, body, view);
    }
    let n_figures = figures(view).len() as u16 + 2;
    let upper = n_figures.max(body.height * 3 / 5).min(body.height.saturating_sub(6));
    let [upper, lower] =
        Layout::vertical([Constraint::Length(upper), Constraint::Min(0)]).areas(body);
    let [left, right] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(30)]).areas(upper);
    draw_curve(frame, left, view, titled("Loss, log scale"));
    frame.render_widget(Paragraph::new(figures(view)).block(titled("Last")), right);
    let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(lower);
    draw_samples(frame, left, view);
    draw_events(frame, right, view);
}

/// Figures above the curve; what does not fit is left out.
fn draw_small(frame: &mut Frame<'_>, body: Rect, view: &View) {
    let figures = figures(view);
    let height = (figures.len() as u16).min(body.height.saturating_sub(5).max(body.height / 2));
    let [upper, lower] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(body);
    frame.render_widget(Paragraph::new(figures), upper);
    draw_curve(frame, lower, view, Block::new());
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View, is_stopping: bool) {
    let hint = match is_stopping {
        true => "saves after this step; Ctrl-C ends now ",
        false => "Ctrl-C or q saves and ends ",
    };
    let style = if is_stopping { Style::new().yellow().bold() } else { Style::new().dim() };
    let width = (hint.len() as u16).min(area.width);
    let [left, right] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
    let name = format!(" puna pretrain  {}", view.run);
    if name.chars().count() <= usize::from(left.width) {
        frame.render_widget(Line::from(name).bold(), left);
    }
    frame.render_widget(Line::styled(hint, style).alignment(Alignment::Right), right);
}

fn draw_progress(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let share = view.share_done();
    // A stage that samples before it trains knows its steps late.
    let mut label = match view.n_steps {
        0 => format!("step {}", view.step),
        n => format!("step {} of {n}, {:.0} %", view.step, 100.0 * share),
    };
    match view.eta_secs {
        Some(secs) if view.step < view.n_steps => {
            label.push_str(&format!(", {} left", TimeSpan(secs)));
        }
        _ => {}
    }
    let gauge = Gauge::default()
        .ratio(share)
        .label(label)
        .use_unicode(true)
        .gauge_style(Style::new().fg(Color::Blue).bg(Color::DarkGray));
    frame.render_widget(gauge, area);
}

/// The last figures, a line each.
fn figures(view: &View) -> Vec<Line<'static>> {
    let last = &view.last;
    let line = |name: &str, value: String| {
        Line::from(vec![
            Span::styled(format!(" {name:<9}"), Style::new().dim()),
            Span::styled(value, Style::new().add_modifier(Modifier::BOLD)),
        ])
    };
    if last.step == 0 {
        return vec![line("", "no step yet".to_owned())];
    }
    let maybe = |n: Option<f64>, decimals| n.map_or("-".to_owned(), |n| format!("{n:.decimals$}"));
    let mut lines = vec![
        line("loss", maybe(last.loss, 4)),
        line("speed", format!("{:.0} tokens/s", last.tokens_per_sec)),
        line("rate", format!("{:.2e}", last.lr)),
        line("gradient", maybe(last.grad_norm, 3)),
    ];
    if let Some(share) = last.peak_share {
        lines.insert(2, line("", format!("{:.0} % of the peak", 100.0 * share)));
    }
    if !view.bits_per_byte.is_empty() {
        lines.push(Line::styled(" held-out bits per byte", Style::new().dim()));
    }
    for (source, bits, fewest) in &view.bits_per_byte {
        lines.push(line(source, format!("{bits:.3}  best {fewest:.3}")));
    }
    lines
}

/// The loss, by ratio: what comes after the first steep fall would else be a flat line.
fn draw_curve(frame: &mut Frame<'_>, area: Rect, view: &View, block: Block<'_>) {
    let curve = view.curve(2 * usize::from(area.width));
    let points: Vec<(f64, f64)> =
        curve.into_iter().filter(|point| point.1 > 0.0).map(|(x, y)| (x, y.ln())).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return frame.render_widget(block, area);
    };
    let low = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = (low - 0.01, high + 0.01);
    let labels = [low, (low + high) / 2.0, high].map(|ln| format!("{:.2}", ln.exp()));
    let (left, right) = (first.0, last.0.max(first.0 + 1.0));
    let ends = [format!("{left:.0}"), format!("{right:.0}")];
    let dataset = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().cyan())
        .data(&points);
    let axis = || Axis::default().style(Style::new().dim());
    let chart = Chart::new(vec![dataset])
        .block(block)
        .legend_position(None)
        .x_axis(axis().bounds([left, right]).labels(ends))
        .y_axis(axis().bounds([low, high]).labels(labels));
    frame.render_widget(chart, area);
}

fn draw_samples(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let (step, texts) = &view.samples;
    let title = if texts.is_empty() { "Text".to_owned() } else { format!("Text of step {step}") };
    let lines = texts.iter().flat_map(|text| text.lines()).map(|line| Line::from(line.to_owned()));
    let text = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: true });
    frame.render_widget(text.block(titled(&title)), area);
}

/// The newest event on top.
fn draw_events(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let lines: Vec<Line<'_>> =
        view.events.iter().rev().map(|event| Line::from(event.as_str())).collect();
    let events = Paragraph::new(lines).wrap(Wrap { trim: true });
    frame.render_widget(events.block(titled("Events")), area);
}

fn titled(title: &str) -> Block<'static> {
    Block::bordered().border_style(Style::new().dim()).title(format!(" {title} "))
}

#[cfg(test)]
mod tests {
    use puna_recipes::{Report, StepRecord};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// A run after 60 of 200 steps.
    fn view() -> View {
        let mut view = View { run: "run/".to_owned(), n_steps: 200, ..View::default() };
        view.tell(&Report::Note("going on after step 0".to_owned()));
        for step in 1..=60 {
            let record = StepRecord {
                step,
                loss: Some(8.0 / (step as f64).sqrt()),
                lr: 2e-3,
                grad_norm: Some(0.75),
                tokens_per_sec: 4321.0,
                peak_share: Some(0.41),
                bits_per_byte: vec![("tales".to_owned(), 0.8123), ("wiki".to_owned(), 1.25)],
                samples: vec!["Once upon a time\nthere was a \u{1b}[31mbear. 熊".to_owned()],
                ..StepRecord::default()
            };
            view.tell(&Report::Step { record: &record, eta_secs: 5000.0 });
        }
        view.tell(&Report::Checkpoint { step: 60 });
        view
    }

    fn picture(view: &View, width: u16, height: u16, is_stopping: bool) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, is_stopping)).unwrap();
        terminal.backend().to_string()
    }

    fn assert_shows(picture: &str, parts: &[&str]) {
        for part in parts {
            assert!(picture.contains(part), "no {part:?} in\n{picture}");
        }
    }

    #[test]
    fn a_common_terminal_shows_everything() {
        let picture = picture(&view(), 80, 24, false);
        let figures =
            ["1.0328", "2.00e-3", "0.750", "4321 tokens/s", "41 % of the peak", "tales    0.812"];
        assert_shows(&picture, &figures);
        assert_shows(&picture, &["step 60 of 200, 30 %, 1 h 23 min left", "Ctrl-C or q saves"]);
        assert_shows(&picture, &["Text of step 60", "Once upon a time", "熊"]);
        assert_shows(&picture, &["Events", "step 60: saved", "going on after step 0"]);
        assert!(picture.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count() > 30);
        assert!(!picture.contains('\u{1b}'), "{picture}");
    }

    #[test]
    fn a_small_terminal_shows_what_matters() {
        let picture = picture(&view(), 40, 12, false);
        assert_shows(&picture, &["Ctrl-C or q saves and ends", "step 60 of 200, 30 %", "1.0328"]);
        assert_shows(&picture, &["4321 tokens/s", "8.08│"]);
    }

    #[test]
    fn it_says_that_it_ends() {
        assert_shows(&picture(&view(), 80, 24, true), &["saves after this step"]);
    }

    #[test]
    fn no_size_and_no_run_are_too_small() {
        let mut odd = view();
        odd.losses = vec![(1, f64::MIN_POSITIVE), (2, f64::MAX), (u64::MAX, -1.0)];
        odd.last.loss = None;
        odd.eta_secs = Some(f64::INFINITY);
        odd.step = u64::MAX;
        for view in [view(), View::default(), odd] {
            for (width, height) in [(1, 1), (1, 50), (200, 1), (2, 2), (5, 30), (60, 18), (61, 19)]
            {
                picture(&view, width, height, false);
            }
        }
    }
}
