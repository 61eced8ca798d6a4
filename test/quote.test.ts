// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell and to Nix
import { describe, expect, test } from "vitest";
import { goString, nixAttr, template, word, words, wordWithEnvironment } from "../src/quote.ts";

describe("word", () => {
  test.each([
    ["root@web1.example.org:22", "root@web1.example.org:22"],
    ["-oStrictHostKeyChecking=no,a+b%c/d", "-oStrictHostKeyChecking=no,a+b%c/d"],
    ["", "''"],
    ["a b", "'a b'"],
    ["~/x", "'~/x'"],
    ["a~", "'a~'"],
    ["it's", "'it'\\''s'"],
    ['$HOME `id` "', "'$HOME `id` \"'"],
    ["a\nb", "'a\nb'"],
    ["a\r\nb", "'a\r''\nb'"],
    ["{{.X}}", "'{''{.X}}'"],
    ["{{{", "'{''{''{'"],
    ["<no value>", "'<no'' value>'"],
    ["{{.LOCAL_FLAKE_SOURCE}}/x", "'{{.LOCAL_FLAKE_SOURCE}}/x'"],
    ["{{{.LOCAL_FLAKE_SOURCE}}}", "'{''{{.LOCAL_FLAKE_SOURCE}}}'"],
    ["{{ .LOCAL_FLAKE_SOURCE }}", "'{''{ .LOCAL_FLAKE_SOURCE }}'"],
    ["é", "'é'"],
  ])("%j becomes %s", (text, expected) => expect(word(text)).toBe(expected));
});

describe("wordWithEnvironment", () => {
  test.each([
    ["-4", "-4"],
    ["a $ b", "'a $ b'"],
    ["$1", "'$1'"],
    ["$(id) ${A:-b}", "'$(id) ${A:-b}'"],
    ["-i/etc/ssh/keys/$USER", '"-i/etc/ssh/keys/${USER}"'],
    ["${A}$B_1", '"${A}${B_1}"'],
    ['$A "`\\$(id)', '"${A} \\"\\`\\\\\\$(id)"'],
    ["{{$A}}", '"{""{${A}}}"'],
    ["{{.LOCAL_FLAKE_SOURCE}}/$A", '"{{.LOCAL_FLAKE_SOURCE}}/${A}"'],
    ["{{{.LOCAL_FLAKE_SOURCE}}$A", '"{""{{.LOCAL_FLAKE_SOURCE}}${A}"'],
    ["$$A", '"\\$${A}"'],
  ])("%j becomes %s", (text, expected) => expect(wordWithEnvironment(text)).toBe(expected));
});

test("words stand apart", () => expect(words(["ls", "-l", "a b", ""])).toBe("ls -l 'a b' ''"));

describe("template", () => {
  test.each([
    ["plain }} <no value>", "plain }} <no value>"],
    ["{{.X}}", '{{"{{"}}.X}}'],
    ["{{{", '{{"{{"}}{'],
    ["{{ <no value>", '{{"{{"}} <no\u00a0value>'],
  ])("%j becomes %j", (text, expected) => expect(template(text)).toBe(expected));
});

describe("goString", () => {
  test.each([
    ["plain", '"plain"'],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ["{{x}}", '"\\x7b\\x7bx\\x7d\\x7d"'],
    ["{}", '"{}"'],
    ["\n\t\u0085", '"\\n\\t\\u0085"'],
    ["é😀", '"é😀"'],
  ])("%j becomes %s", (text, expected) => expect(goString(text)).toBe(expected));
});

describe("nixAttr", () => {
  test.each([
    ["web1.example", '"web1.example"'],
    ['a"b${c}', '"a\\"b\\${c}"'],
    ["a\\b", '"a\\\\b"'],
    ["$a $${b}", '"$a $\\${b}"'],
    ["a\r\nb", '"a\\r\nb"'],
  ])("%j becomes %s", (name, expected) => expect(nixAttr(name)).toBe(expected));
});
