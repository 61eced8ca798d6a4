// The only module that escapes. A command of the Taskfile is read by go-task's template engine, then by its own shell,
// then often by a real sh, here or behind ssh: every word is written so that all of them see the same bytes.

/** Stays a template in every word: go-task puts the flake's store path there, which holds no quote. */
export const flakeSource = "{{.LOCAL_FLAKE_SOURCE}}";

const safe = /^[\w@%+=:,./-]+$/;
const environmentReference = /\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})/;

/** Where quotes are closed and reopened: in a template, in what go-task deletes from what it templates, and in a line
 * end that its shell would shorten. */
const cuts = /\{(?=\{)|<no(?= value>)|\r(?=\n)/g;

/** What Go's YAML reader refuses or takes for a line end unless it is written as an escape. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
const unprintable = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

/** One shell word that means `text` and nothing else, in a command that go-task templates. */
export function word(text: string): string {
  return safe.test(text) ? text : quoted(text, "'", (data) => data.replaceAll("'", "'\\''"));
}

/** As `word`, but `$NAME` and `${NAME}` stay references to the environment, whose values are never split. */
export function wordWithEnvironment(text: string): string {
  if (!environmentReference.test(text)) return word(text);
  return quoted(text, '"', (data) =>
    data
      .split(new RegExp(environmentReference, "g"))
      // every three: text, then the name as $NAME, or as ${NAME}
      .map((part, index) => (index % 3 === 0 ? (part ?? "").replace(/[\\"$`]/g, "\\$&") : part && `\${${part}}`))
      .join(""),
  );
}

/** For what go-task templates and no shell reads: desc, summary, prompt, prefix. */
export function template(text: string): string {
  if (!text.includes("{{")) return text;
  // a no-break space: nothing else keeps go-task from deleting it here
  return text.replaceAll("<no value>", "<no\u00a0value>").replaceAll("{{", '{{"{{"}}');
}

/** Whether YAML must hold a text in double quotes: what else the yaml package writes, go-task's reader misreads. */
export function needsYamlString(text: string): boolean {
  return (
    text.search(unprintable) !== -1 ||
    (text.includes("\t") && text.includes("\n")) ||
    /^\s+$|^[-+]?0_*[oO][0-7_]+$/.test(text)
  );
}

/** For the finished YAML: in its double quotes the yaml package leaves characters that go-task's reader refuses. */
export function escapeUnprintable(yaml: string): string {
  return yaml.replace(unprintable, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function quoted(text: string, quote: string, escaped: (data: string) => string): string {
  const again = quote + quote;
  const parts = text.split(flakeSource).map((part) => escaped(part).replace(cuts, (found) => found + again));
  // a brace right before the template would open it one character early
  return quote + parts.join(flakeSource).replaceAll(`{${flakeSource}`, `{${again}${flakeSource}`) + quote;
}
