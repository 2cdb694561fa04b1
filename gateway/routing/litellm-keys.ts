const ENVIRONMENT = /^os\.environ\/([A-Za-z_]\w*)$/;

export type Fields = Record<string, unknown>;

/** The fields of an object; none of anything else. */
export function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** A number that is at least 0. */
export function numberOf(value: unknown): number | undefined {
  const number = typeof value === 'string' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) && number >= 0 ? number : undefined;
}

/** Looks values up and keeps the account of what was taken and what was not. */
export class KeyReader {
  readonly taken: string[] = [];
  readonly ignored: string[] = [];
  readonly #variable: (name: string) => string | undefined;

  constructor(variable: (name: string) => string | undefined) {
    this.#variable = variable;
  }

  take(key: string, what: string): void {
    this.taken.push(`${key}: ${what}`);
  }

  ignore(key: string, why: string): void {
    this.ignored.push(`${key}: ${why}`);
  }

  /** A value that is no secret: `os.environ/NAME` is replaced by what the variable holds. */
  text(value: unknown, key: string): string | undefined {
    const text = textOf(value);
    const name = text === undefined ? undefined : ENVIRONMENT.exec(text)?.[1];
    if (name === undefined) return text;
    const found = textOf(this.#variable(name));
    if (found === undefined) this.ignore(key, `the variable ${name} is not set`);
    return found;
  }

  /** A secret: only ever a reference. What stands in the file itself is not taken. */
  reference(value: unknown, key: string): string | undefined {
    if (value === undefined || value === null) return undefined;
    const name = typeof value === 'string' ? ENVIRONMENT.exec(value)?.[1] : undefined;
    if (name !== undefined) return `env:${name}`;
    this.ignore(key, 'a key in the file itself is never taken: put it into a variable and write os.environ/NAME');
    return undefined;
  }

  /** `env:NAME` when the variable is set: the default LiteLLM would use. */
  default(name: string): string | undefined {
    return textOf(this.#variable(name)) === undefined ? undefined : `env:${name}`;
  }

  /** The text of a variable, or undefined. */
  variable(name: string): string | undefined {
    return textOf(this.#variable(name));
  }
}
