/** Zod-free. What a long-lived key may be used for: this API, model calls through the gateway. */
export const KEY_SCOPES = ['api', 'gateway'] as const;
export type KeyScope = (typeof KEY_SCOPES)[number];

/** Team of those who run the installation; keys are of this team unless their maker names another. */
export const OPERATOR_TEAM_ID = 'default';
