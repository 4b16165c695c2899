// xml: the writer's escaping, the reader's refusals, percent coding.
#include "protocol/s3/xml.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace basalt::s3 {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  append_xml_escaped(text, out);
  return out;
}

TEST(Xml, WritesDocuments) {
  XmlWriter xml("R");
  xml.text("A", "x & <y>");
  xml.number("N", 18446744073709551615u);
  xml.boolean("B", true);
  xml.time("T", 1'795'226'460'123);
  xml.etag("E", "abc");
  xml.owner("Owner", "id", "name");
  EXPECT_EQ(xml.finish(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><A>x &amp; "
            "&lt;y&gt;</A><N>18446744073709551615</N>"
            "<B>true</B><T>2026-11-21T02:01:00.000Z</T><E>&quot;abc&quot;</E>"
            "<Owner><ID>id</ID><DisplayName>name</DisplayName></Owner></R>");
}

TEST(Xml, EscapesSpecialAndControlCharacters) {
  EXPECT_EQ(escaped("plain/key\xc3\xa9"), "plain/key\xc3\xa9");
  EXPECT_EQ(escaped("&<>\"'"), "&amp;&lt;&gt;&quot;&apos;");
  EXPECT_EQ(escaped("a\r\n\t\x01z"), "a&#xD;&#xA;&#x9;&#x1;z");
  EXPECT_EQ(escaped("\x7f"), "&#x7F;");
  EXPECT_EQ(escaped("a\xff<\xc3\xa9\xe2\x82"), "a\xEF\xBF\xBD&lt;\xc3\xa9\xEF\xBF\xBD\xEF\xBF\xBD");
}

// At every place of texts of every length around the sixteen bytes that are looked at together.
TEST(Xml, KnowsPlainText) {
  for (size_t size = 0; size < 50; ++size) {
    std::string text;
    for (size_t i = 0; i < size; ++i) text += static_cast<char>('!' + (i * 7 + size) % 90);
    for (char& c : text) {
      if (std::string_view("&<>\"'").find(c) != std::string_view::npos) c = '~';
    }
    EXPECT_TRUE(is_plain_xml(text)) << text;
    EXPECT_EQ(escaped(text), text);
    for (char& place : text) {
      for (const char odd : {'&', '<', '>', '"', '\'', '\0', '\x1f', '\x7f', '\x80', '\xff'}) {
        const char was = std::exchange(place, odd);
        EXPECT_FALSE(is_plain_xml(text));
        place = was;
      }
    }
  }
}

TEST(Xml, TimesOfOneDayAndOfMany) {
  Iso8601 times;
  for (const auto& [ms, text] : std::vector<std::pair<int64_t, std::string>>{
           {1'795'226'460'123, "2026-11-21T02:01:00.000Z"},
           {1'795'226'460'999, "2026-11-21T02:01:00.000Z"},
           {1'795'226'461'000, "2026-11-21T02:01:01.000Z"},
           {1'795'305'599'000, "2026-11-21T23:59:59.000Z"},
           {1'795'305'600'000, "2026-11-22T00:00:00.000Z"},
           {1'795'226'461'000, "2026-11-21T02:01:01.000Z"},
           {0, "1970-01-01T00:00:00.000Z"},
           {-5, "1970-01-01T00:00:00.000Z"},
           {951'782'400'000, "2000-02-29T00:00:00.000Z"}}) {
    EXPECT_EQ(times.text(ms), text);
    std::string appended;
    append_iso8601(ms, appended);
    EXPECT_EQ(appended, text);
  }
}

std::string parse(std::string_view text, std::string_view root = "D") {
  pugi::xml_document document;
  auto node = parse_xml(document, text, root);
  if (!node) return std::string(s3_code_name(node.error().code));
  return "ok";
}

TEST(Xml, AcceptsWhatS3ClientsSend) {
  EXPECT_EQ(parse("<D/>"), "ok");
  EXPECT_EQ(parse("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<D xmlns=\"urn:x\"><A>1</A></D>\n"),
            "ok");
  EXPECT_EQ(parse("<!-- c --><D><![CDATA[<&]]></D>"), "ok");
  EXPECT_EQ(parse("<s3:D xmlns:s3=\"urn:x\"/>"), "ok");
}

TEST(Xml, RefusesWhatIsNotXml) {
  for (const char* text : {"",
                           " ",
                           "x",
                           "<D>",
                           "<D></E>",
                           "<E/>",
                           "<D/><D/>",
                           "<D/>x",
                           "x<D/>",
                           "<!DOCTYPE D []><D/>",
                           "<!DOCTYPE D [<!ENTITY a \"b\">]><D>&a;</D>",
                           "<D>&nbsp;</D>",
                           "<D>&</D>",
                           "<D>&#0;</D>",
                           "<D>&#xD800;</D>",
                           "<D>&#x110000;</D>",
                           "<D>\xff</D>",
                           "<D>\xc0\x80</D>",
                           "<!ELEMENT D><D/>",
                           "<D><!-- </D>",
                           "<D><![CDATA[</D>"}) {
    EXPECT_EQ(parse(text), "MalformedXML") << text;
  }
  EXPECT_EQ(parse(std::string_view("<D>\0</D>", 8)), "MalformedXML");
}

TEST(Xml, BoundsDepthAndMarkup) {
  const auto nested = [](int depth) {
    std::string text = "<D>";
    for (int i = 1; i < depth; ++i) text += "<a>";
    text += "t";
    for (int i = 1; i < depth; ++i) text += "</a>";
    return text + "</D>";
  };
  EXPECT_EQ(parse(nested(kXmlDepthMax)), "ok");
  EXPECT_EQ(parse(nested(kXmlDepthMax + 1)), "MalformedXML");
  EXPECT_EQ(parse(nested(50'000)), "MalformedXML");
  std::string many = "<D>";
  for (size_t i = 0; i < kXmlMarkupMax; ++i) many += "<a/>";
  EXPECT_EQ(parse(many + "</D>"), "MalformedXML");
}

TEST(Xml, KeepsTextAsItIs) {
  pugi::xml_document document;
  auto root = parse_xml(
      document,
      "<x:D xmlns:x=\"u\"><x:Key> </x:Key><Key>a<!-- c -->b</Key><Key>&#x1;&amp;&lt;&#233;</Key>"
      "<Key><![CDATA[<k>]]></Key></x:D>",
      "D");
  ASSERT_TRUE(root.has_value());
  std::vector<std::string> keys;
  for (const pugi::xml_node key : root->children("Key")) keys.push_back(xml_text(key));
  EXPECT_EQ(keys, (std::vector<std::string>{" ", "ab", "\x01&<\xc3\xa9", "<k>"}));
  EXPECT_EQ(xml_trimmed("\n 5 \t"), "5");
}

TEST(Xml, PercentCoding) {
  EXPECT_EQ(url_encode("a b+c/d~\xc3\xa9\x01", true), "a%20b%2Bc/d~%C3%A9%01");
  EXPECT_EQ(url_encode("a/b", false), "a%2Fb");
  EXPECT_EQ(percent_decode("a%2Fb+c", false), "a/b+c");
  EXPECT_EQ(percent_decode("a%2fb+c", true), "a/b c");
  for (const char* bad : {"%", "%2", "%zz", "a%2", "%%20"})
    EXPECT_EQ(percent_decode(bad, false), std::nullopt) << bad;
}

TEST(Xml, Utf8) {
  for (const char* good : {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80",
                           "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(valid_utf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe2\x82", "a\xc3z"}) {
    EXPECT_FALSE(valid_utf8(bad)) << bad;
  }
}

}  // namespace
}  // namespace basalt::s3
