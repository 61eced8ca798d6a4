/** What the program refuses, for tests to look at. */
import { AppError } from "../src/errors.ts";

/** The error that this throws; throws itself if nothing was refused. */
export function errorOf(run: () => unknown): AppError {
  try {
    run();
  } catch (error) {
    if (error instanceof AppError) return error;
  }
  throw new Error("nothing was refused");
}
