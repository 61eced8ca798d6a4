/** go-task passes over a key that it does not know without a word, so a Taskfile is held to this as well. */
import { z } from "zod";
import { taskSchema } from "../src/task-schema.ts";

/** A whole Taskfile that holds only what go-task knows, and of that only what the generator writes. */
export const taskfileSchema = z.strictObject({
  version: z.literal("3.51.1"),
  output: z.literal("prefixed"),
  tasks: z.record(z.string(), taskSchema),
  env: z.record(z.string().regex(/^LOLLYPOPS_(SET_|SH_|TARGET_)?[0-9a-f]{6}$/), z.string()),
});
