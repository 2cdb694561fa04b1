/** Where the vault gets the time from: one place, so that a test can be at any moment. */
export interface Clock {
  nowMs(): number;
}

export const SYSTEM_CLOCK: Clock = { nowMs: () => Date.now() };
