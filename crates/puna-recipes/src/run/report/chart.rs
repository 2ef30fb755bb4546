//! A chart as SVG that fits any width: numbers lie at percentages, and only curves are stretched.

use std::fmt::Write;

use super::axis::{Axis, grouped, number};
use super::fields::Field;
use super::history::{Event, Group, Point};
use super::html::Text;
use super::thin::{smooth, spread, thin};

/// Units of a curve's drawing across and down.
const SIZE: (f64, f64) = (4000.0, 2000.0);

/// Stretches of a curve of which the extremes are drawn.
const N_BUCKETS: u64 = 400;

/// Places along the steps that tell their numbers, and that events are marked at.
const N_COLUMNS: u64 = 120;

/// Rows of a chart's table.
const N_ROWS: usize = 16;

/// A curve of a chart.
struct Curve<'a> {
    name: &'a str,
    /// As they were logged.
    points: Vec<Point>,
    /// The mean of neighbours, for noisy ones; else the points once more.
    line: Vec<Point>,
}

/// What a chart is drawn from.
pub(super) struct Chart<'a> {
    field: &'a Field,
    curves: Vec<Curve<'a>>,
    x: Axis,
    y: Axis,
}

impl<'a> Chart<'a> {
    /// A chart of a field's curves over the steps of a run.
    pub(super) fn new(field: &'a Field, group: &'a Group, steps: (u64, u64)) -> Self {
        let curves: Vec<Curve<'a>> = group
            .iter()
            .map(|(name, points)| {
                let scaled: Vec<Point> =
                    points.iter().map(|&(step, n)| (step, n * field.factor)).collect();
                let line = if field.is_noisy { smooth(&scaled) } else { scaled.clone() };
                Curve { name, points: scaled, line }
            })
            .collect();
        let numbers = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
        let y = Axis::new(numbers, field.scale);
        Self { field, y, curves, x: Axis::of_steps(steps) }
    }

    /// Name, last number and what to say about it, of each curve.
    pub(super) fn last_figures(&self) -> Vec<(&'a str, String, String)> {
        let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let figures = self.curves.iter().filter_map(|Curve { name, points, line }| {
            let (low, high) = (points.iter().min_by(by_value)?, points.iter().max_by(by_value)?);
            let note = match self.field.is_lowest_best {
                true => format!("lowest {} at step {}", number(low.1), grouped(low.0)),
                false => format!("{} to {}", number(low.1), number(high.1)),
            };
            Some((*name, number(line.last()?.1), note))
        });
        figures.collect()
    }

    /// What the chart shows, in a sentence.
    fn summary(&self) -> String {
        let mut text = String::new();
        for curve in &self.curves {
            let (Some(first), Some(last)) = (curve.line.first(), curve.line.last()) else {
                continue;
            };
            if !curve.name.is_empty() {
                let _ = write!(text, "{}: ", curve.name);
            }
            let _ = match curve.line.len() {
                1 => write!(text, "{} at step {}. ", number(last.1), grouped(last.0)),
                _ => write!(
                    text,
                    "from {} at step {} to {} at step {}. ",
                    number(first.1),
                    grouped(first.0),
                    number(last.1),
                    grouped(last.0)
                ),
            };
        }
        text.trim_end().to_owned()
    }

    /// The figure: caption, drawing, numbers. `id` is unique on the page.
    pub(super) fn draw(&self, out: &mut String, id: &str, events: &[Event]) {
        let Field { title, unit, .. } = self.field;
        let scale = if self.y.is_log { "log scale" } else { "" };
        let unit = [*unit, scale].into_iter().filter(|word| !word.is_empty());
        let unit = unit.collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "<figure><figcaption><h3 id=\"{id}\">{}</h3><p class=\"unit\">{}</p></figcaption>",
            Text(title),
            Text(&unit)
        );
        self.draw_legend(out);
        let _ = writeln!(
            out,
            "<div class=\"plot\"><svg role=\"img\" aria-labelledby=\"{id}\" aria-describedby=\"{id}-d\">\n\
             <desc id=\"{id}-d\">{}</desc>",
            Text(&self.summary())
        );
        self.draw_axes(out);
        self.draw_curves(out);
        self.draw_events(out, events);
        self.draw_readings(out);
        out.push_str("</svg></div>\n");
        self.draw_table(out, title);
        out.push_str("</figure>\n");
    }

    fn draw_legend(&self, out: &mut String) {
        if self.curves.len() > 1 {
            out.push_str("<ul class=\"legend\">");
            for (i, curve) in self.curves.iter().enumerate() {
                let _ = write!(out, "<li class=\"{}\">{}</li>", color(i), Text(curve.name));
            }
            out.push_str("</ul>\n");
        }
    }

    fn draw_axes(&self, out: &mut String) {
        for &tick in &self.y.ticks {
            let y = percent(1.0 - self.y.place(tick));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/><text class=\"y\" y=\"{y}\">{}</text>",
                self.y.label(tick)
            );
        }
        out.push_str("<line class=\"base\" x2=\"100%\" y1=\"100%\" y2=\"100%\"/>\n");
        for &tick in &self.x.ticks {
            let x = percent(self.x.place(tick));
            let _ = writeln!(
                out,
                "<text class=\"x\" x=\"{x}\" y=\"100%\">{}</text>",
                self.x.label(tick)
            );
        }
    }

    fn draw_curves(&self, out: &mut String) {
        let (width, height) = SIZE;
        let _ = writeln!(
            out,
            "<svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" width=\"100%\" height=\"100%\">"
        );
        for (i, curve) in self.curves.iter().enumerate() {
            let color = color(i);
            // Few points are dots that may be looked at, many a cloud.
            let (class, shown) = match (self.field.is_noisy, curve.points.len()) {
                (true, 100..) => ("cloud", &curve.points[..]),
                (_, ..100) => ("dots", &curve.points[..]),
                _ => ("", &[][..]),
            };
            if !shown.is_empty() {
                let path = self.path(&thin(shown, N_BUCKETS), "h0");
                let _ = writeln!(out, "<path class=\"{class} {color}\" d=\"{path}\"/>");
            }
            let path = self.path(&thin(&curve.line, N_BUCKETS), "");
            let _ = writeln!(out, "<path class=\"line {color}\" d=\"{path}\"/>");
        }
        out.push_str("</svg>\n");
    }

    /// A path through points, or dots at them where each is followed by `h0`, a line without length.
    fn path(&self, points: &[Point], dot: &str) -> String {
        let mut path = String::new();
        for (i, &(step, n)) in points.iter().enumerate() {
            let x = (self.x.place(step as f64) * SIZE.0).round();
            let y = ((1.0 - self.y.place(n)) * SIZE.1).round();
            let command = if i == 0 || !dot.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{x} {y}{dot}");
        }
        path
    }

    /// A line at each event; those that would lie on each other are one.
    fn draw_events(&self, out: &mut String, events: &[Event]) {
        let column =
            |event: &Event| (self.x.place(event.step as f64) * 2.0 * N_COLUMNS as f64) as u64;
        for same in events.chunk_by(|a, b| column(a) == column(b)) {
            let x = percent(self.x.place(same[0].step as f64));
            let class = if same.iter().any(|event| event.is_fault) { "fault" } else { "told" };
            let _ = writeln!(
                out,
                "<line class=\"event {class}\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"100%\"/>"
            );
        }
    }

    /// Columns that tell the step and the numbers under the pointer, without a script.
    fn draw_readings(&self, out: &mut String) {
        let Some(longest) = self.curves.iter().max_by_key(|curve| curve.line.len()) else { return };
        let points = spread(&longest.line, N_COLUMNS as usize);
        let place = |point: &Point| self.x.place(point.0 as f64);
        for (i, point) in points.iter().enumerate() {
            let left = if i == 0 { 0.0 } else { (place(&points[i - 1]) + place(point)) / 2.0 };
            let right = points.get(i + 1).map_or(1.0, |next| (place(point) + place(next)) / 2.0);
            let mut reading = format!("step {}", grouped(point.0));
            for curve in &self.curves {
                if let Ok(at) = curve.line.binary_search_by_key(&point.0, |point| point.0) {
                    let name = if curve.name.is_empty() { ":" } else { curve.name };
                    let _ = write!(reading, "  {name} {}", number(curve.line[at].1));
                }
            }
            let (x, width, at) = (percent(left), percent(right - left), percent(place(point)));
            let _ = writeln!(
                out,
                "<g class=\"at\"><rect x=\"{x}\" width=\"{width}\" height=\"100%\"/><line x1=\"{at}\" x2=\"{at}\" y2=\"100%\"/>\
                 <text x=\"100%\">{}</text></g>",
                Text(&reading.replacen("  :", ":", 1))
            );
        }
    }

    fn draw_table(&self, out: &mut String, title: &str) {
        let Some(longest) = self.curves.iter().max_by_key(|curve| curve.line.len()) else { return };
        let smoothed = longest.line != longest.points;
        let what = if smoothed { "Numbers, smoothed" } else { "Numbers" };
        let _ = write!(
            out,
            "<details><summary>{what}</summary><div class=\"wide\"><table aria-label=\"{}\"><thead><tr><th>step</th>",
            Text(title)
        );
        for curve in &self.curves {
            let name = if curve.name.is_empty() { title } else { curve.name };
            let _ = write!(out, "<th>{}</th>", Text(name));
        }
        out.push_str("</tr></thead><tbody>\n");
        for (step, _) in spread(&longest.line, N_ROWS) {
            let _ = write!(out, "<tr><td>{}</td>", grouped(step));
            for curve in &self.curves {
                let at = curve.line.binary_search_by_key(&step, |point| point.0);
                let cell = at.map_or(String::new(), |at| number(curve.line[at].1));
                let _ = write!(out, "<td>{cell}</td>");
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div></details>\n");
    }
}

/// The style of the `i`-th curve.
fn color(i: usize) -> String {
    format!("c{}", i % 8)
}

fn percent(place: f64) -> String {
    format!("{:.2}%", 100.0 * place)
}
