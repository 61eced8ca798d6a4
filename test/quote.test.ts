// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these belong to the shell and to Nix
import { describe, expect, test } from "vitest";
import { template, word, wordWithEnvironment } from "../src/quote.ts";

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

test("words stand apart", () => expect(["ls", "-l", "a b", ""].map(word).join(" ")).toBe("ls -l 'a b' ''"));

describe("template", () => {
  test.each([
    ["plain }} <no value>", "plain }} <no value>"],
    ["{{.X}}", '{{"{{"}}.X}}'],
    ["{{{", '{{"{{"}}{'],
    ["{{ <no value>", '{{"{{"}} <no\u00a0value>'],
  ])("%j becomes %j", (text, expected) => expect(template(text)).toBe(expected));
});
