/** What a user can cause, as data: one sentence, an optional next step, and the exit code that goes with it. */
export class AppError extends Error {
  readonly exitCode: number;
  readonly hint: string | undefined;

  constructor(exitCode: number, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "AppError";
    this.exitCode = exitCode;
    this.hint = options.hint;
  }
}

type Options = { hint?: string; cause?: unknown };

/** The command line is wrong: exit 2. */
export const usageError = (message: string, options?: Options) => new AppError(2, message, options);
/** nix (or, for `run`, go-task) is missing or failed: exit 3. */
export const nixError = (message: string, options?: Options) => new AppError(3, message, options);
/** The configuration is wrong: exit 4. */
export const configError = (message: string, options?: Options) => new AppError(4, message, options);
/** `--check` found a difference: exit 5. */
export const driftError = (message: string, options?: Options) => new AppError(5, message, options);

/** All problems of an input in one error, a line each. */
export function configProblems(problems: readonly string[]): AppError {
  const head =
    problems.length === 1 ? "the configuration is wrong" : `the configuration has ${problems.length} problems`;
  return configError(`${head}:\n${problems.map((problem) => `  - ${problem.replaceAll("\n", "\n    ")}`).join("\n")}`);
}
