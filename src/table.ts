/**
 * An object of these entries, in their order. V8 keeps a shape for each name that an ordinary object begins with, of some 1500
 * hosts as well, and then makes slow dictionaries of all objects; one without a prototype is one from the start.
 */
export function table<Value>(entries: Iterable<readonly [string, Value]>): Record<string, Value> {
  const made: Record<string, Value> = Object.create(null);
  for (const [name, value] of entries) made[name] = value;
  return made;
}
