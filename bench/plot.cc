#include "bench/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

namespace basalt::bench {
namespace {

using nlohmann::ordered_json;

constexpr double kWidth = 960, kPanelHeight = 300, kLeft = 86, kRight = 30, kTop = 44, kGap = 76;
constexpr std::array<const char*, 8> kColours = {"#1f6feb", "#d1492e", "#2f8f46", "#8a4fbf",
                                                 "#b7791f", "#0f8b8d", "#c2407f", "#57606a"};

struct Point {
  double x, y;
};
struct Series {
  std::string name;
  std::string colour;
  bool dashed = false;
  std::vector<Point> points;
};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out.push_back(c);
  }
  return out;
}

std::string duration_text(double us) {
  if (us < 1000) return fmt::format("{:g} us", us);
  return us < 1e6 ? fmt::format("{:g} ms", us / 1000) : fmt::format("{:g} s", us / 1e6);
}

std::string count_text(double value) {
  if (value >= 1e6) return fmt::format("{:g} M", value / 1e6);
  return value >= 1e4 ? fmt::format("{:g} k", value / 1e3) : fmt::format("{:g}", value);
}

// One panel with its axes. Values are mapped to pixels by `x` and `y`, which are functions onto [0,
// 1].
class Panel {
 public:
  Panel(double top, std::string title) : top_(top), title_(std::move(title)) {}
  std::function<double(double)> x, y;
  std::vector<std::pair<double, std::string>> x_marks, y_marks;
  std::vector<Series> series;

  std::string svg() const {
    const double right = kWidth - kRight, bottom = top_ + kPanelHeight;
    std::string out = fmt::format("<text x=\"{}\" y=\"{}\" class=\"title\">{}</text>\n", kLeft,
                                  top_ - 12, escaped(title_));
    for (const auto& [value, text] : y_marks) {
      const double at = pixel_y(value);
      out += fmt::format(
          "<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\" class=\"grid\"/>"
          "<text x=\"{}\" y=\"{:.1f}\" class=\"mark\" text-anchor=\"end\">{}</text>\n",
          kLeft, at, right, at, kLeft - 8, at + 4, text);
    }
    for (const auto& [value, text] : x_marks) {
      const double at = pixel_x(value);
      out += fmt::format(
          "<line x1=\"{:.1f}\" y1=\"{}\" x2=\"{:.1f}\" y2=\"{}\" class=\"grid\"/>"
          "<text x=\"{:.1f}\" y=\"{}\" class=\"mark\" text-anchor=\"middle\">{}</text>\n",
          at, top_, at, bottom, at, bottom + 17, text);
    }
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"frame\"/>\n",
                       kLeft, top_, right - kLeft, kPanelHeight);
    for (const Series& one : series) {
      std::string points;
      for (const Point& point : one.points)
        points += fmt::format("{:.1f},{:.1f} ", pixel_x(point.x), pixel_y(point.y));
      out += fmt::format(
          "<polyline points=\"{}\" stroke=\"{}\"{} class=\"line\"><title>{}</title></polyline>\n",
          points, one.colour, one.dashed ? " stroke-dasharray=\"5 4\"" : "", escaped(one.name));
    }
    double legend = top_ + 18;
    for (const Series& one : series) {
      out += fmt::format(
          "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"{3}\" stroke-width=\"2\"{4}/>"
          "<text x=\"{5}\" y=\"{6}\" class=\"mark\">{7}</text>\n",
          kLeft + 12, legend - 4, kLeft + 36, one.colour,
          one.dashed ? " stroke-dasharray=\"5 4\"" : "", kLeft + 42, legend, escaped(one.name));
      legend += 16;
    }
    return out;
  }

 private:
  double pixel_x(double value) const {
    return kLeft + std::clamp(x(value), 0.0, 1.0) * (kWidth - kLeft - kRight);
  }
  double pixel_y(double value) const {
    return top_ + (1 - std::clamp(y(value), 0.0, 1.0)) * kPanelHeight;
  }
  double top_;
  std::string title_;
};

// A logarithmic y axis in microseconds over what the series hold.
void latency_axis(Panel& panel) {
  double low = 1e18, high = 1;
  for (const Series& one : panel.series) {
    for (const Point& point : one.points) {
      if (point.y > 0) low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  const double bottom = std::floor(std::log10(std::min(low, high))),
               top = std::max(std::ceil(std::log10(high)), bottom + 1);
  panel.y = [bottom, top](double us) {
    return us <= 0 ? 0 : (std::log10(us) - bottom) / (top - bottom);
  };
  for (double decade = bottom; decade <= top; ++decade) {
    panel.y_marks.emplace_back(std::pow(10, decade), duration_text(std::pow(10, decade)));
  }
}

// A linear axis from 0 with about five marks at round numbers.
std::vector<std::pair<double, std::string>> round_marks(double& high) {
  if (high <= 0) high = 1;
  const double rough = high / 5, power = std::pow(10, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    step = factor * power;
    if (step >= rough) break;
  }
  high = std::ceil(high / step) * step;
  std::vector<std::pair<double, std::string>> marks;
  for (double value = 0; value <= high + step / 2; value += step)
    marks.emplace_back(value, count_text(value));
  return marks;
}

// Runs of one document. Of a comparison: each endpoint's middle run by throughput.
void add_runs(const ordered_json& document, std::vector<ordered_json>& runs) {
  if (document.at("format") == "basalt-bench-run-1") {
    runs.push_back(document);
    return;
  }
  if (document.at("format") != "basalt-bench-compare-1") return;
  for (const ordered_json& endpoint : document.at("endpoints")) {
    std::vector<ordered_json> list = endpoint.at("runs");
    if (list.empty()) continue;
    std::ranges::sort(list, {}, [](const ordered_json& run) {
      return run.at("total").at("operations_per_s").get<double>();
    });
    runs.push_back(list[list.size() / 2]);
  }
}

Series percentile_series(const ordered_json& operation) {
  Series series;
  const ordered_json& latency = operation.at("latency_us");
  const auto count = latency.at("count").get<double>();
  double seen = 0;
  for (const ordered_json& bucket : latency.at("buckets")) {
    seen += bucket.at(1).get<double>();
    // The last value stands for the share that was not measured any finer.
    const double above = std::max(1 - seen / count, 0.5 / count);
    series.points.push_back({above, bucket.at(0).get<double>()});
  }
  return series;
}

std::string draw(const std::vector<ordered_json>& runs) {
  constexpr double kNines = 4.5;  // the axis ends behind p99.99
  Panel percentiles(kTop + 26, "Latency by percentile");
  percentiles.x = [](double above) { return -std::log10(above) / kNines; };
  for (const auto& [above, text] : {std::pair{1.0, "0"},
                                    {0.5, "p50"},
                                    {0.1, "p90"},
                                    {0.01, "p99"},
                                    {0.001, "p99.9"},
                                    {0.0001, "p99.99"}}) {
    percentiles.x_marks.emplace_back(above, text);
  }
  Panel throughput(kTop + 26 + kPanelHeight + kGap, "Operations a second");
  Panel over_time(kTop + 26 + 2 * (kPanelHeight + kGap), "Latency over time: p50, and p99 dashed");
  double seconds = 0, operations = 0;
  size_t colour = 0;
  for (const ordered_json& run : runs) {
    const auto name = run.at("name").get<std::string>();
    const std::string run_colour = kColours[colour % kColours.size()];
    for (const auto& [op, values] : run.at("operations").items()) {
      Series series = percentile_series(values);
      series.name = fmt::format("{} {}", name, op);
      series.colour = kColours[colour++ % kColours.size()];
      percentiles.series.push_back(std::move(series));
    }
    Series rate{.name = name, .colour = run_colour}, p50 = rate, p99 = rate;
    p50.name += " p50";
    p99.name += " p99";
    p99.dashed = true;
    // A sample stands for the time since the one before it: steps, not slopes.
    double from = 0;
    for (const ordered_json& point : run.at("timeline")) {
      const auto to = point.at("t_s").get<double>();
      seconds = std::max(seconds, to);
      operations = std::max(operations, point.at("operations_per_s").get<double>());
      for (const double at : {from, to}) {
        rate.points.push_back({at, point.at("operations_per_s").get<double>()});
        p50.points.push_back({at, point.at("p50_us").get<double>()});
        p99.points.push_back({at, point.at("p99_us").get<double>()});
      }
      from = to;
    }
    throughput.series.push_back(std::move(rate));
    over_time.series.push_back(std::move(p50));
    over_time.series.push_back(std::move(p99));
  }
  latency_axis(percentiles);
  latency_axis(over_time);
  const auto time_marks = round_marks(seconds);
  throughput.y_marks = round_marks(operations);
  throughput.y = [operations](double value) { return value / operations; };
  for (Panel* panel : {&throughput, &over_time}) {
    panel->x = [seconds](double value) { return value / seconds; };
    panel->x_marks = time_marks;
    panel->x_marks.back().second += " s";
  }
  const double height = kTop + 26 + 3 * (kPanelHeight + kGap) - 30;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" "
      "font-family=\"system-ui, sans-serif\">\n"
      "<style>.title{{font-size:14px;font-weight:600;fill:#1f2328}}.mark{{font-size:11px;fill:#"
      "57606a}}"
      ".grid{{stroke:#d8dee4;stroke-width:1}}.frame{{fill:none;stroke:#8c959f}}.line{{fill:none;"
      "stroke-width:2}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
      kWidth, height);
  out += fmt::format("<text x=\"{}\" y=\"26\" class=\"title\">{}</text>\n", kLeft,
                     escaped(runs.front().at("description").get<std::string>()));
  return out + percentiles.svg() + throughput.svg() + over_time.svg() + "</svg>\n";
}

}  // namespace

Result<std::string> plot(const std::vector<ordered_json>& documents) {
  try {
    std::vector<ordered_json> runs;
    for (const ordered_json& document : documents) add_runs(document, runs);
    if (runs.empty()) return fail(Code::kInvalid, "there is no run in it");
    return draw(runs);
  } catch (const nlohmann::json::exception& error) {
    return fail(Code::kInvalid, fmt::format("not a result of basalt-bench: {}", error.what()));
  }
}

}  // namespace basalt::bench
