import type { Express } from 'express';
import express from 'express';
import helmet from 'helmet';
import { newId } from '../contracts/ids.ts';
import { LIMITS } from '../contracts/limits.ts';
import { docsPage, errorsPage } from './docs-page.ts';
import { errorHandler, routeNotFound } from './errors.ts';
import { mountOpencode } from './opencode/routes.ts';
import { openApiDocument } from './openapi.ts';
import { mount } from './router.ts';
import { ENDPOINTS } from './routes/index.ts';
import type { Services } from './services.ts';

/** The HTTP API over its services; starts nothing. */
export function createApp(services: Services): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', false);
  app.use((_req, res, next) => {
    res.setHeader('request-id', newId('request'));
    next();
  });
  app.use(helmet());
  app.use(
    express.json({ limit: LIMITS.requestBodyBytes, strict: false, type: ['application/json', 'application/*+json'] }),
  );
  mount(app, ENDPOINTS, services);
  mountOpencode(app, services);
  mountDocs(app);
  app.use(routeNotFound);
  app.use(errorHandler(services.logger));
  return app;
}

function mountDocs(app: Express): void {
  const document = openApiDocument(ENDPOINTS);
  const docs = docsPage(ENDPOINTS, document);
  const errors = errorsPage();
  app.get('/openapi.json', (_req, res) => void res.json(document));
  app.get('/docs', (_req, res) => void res.type('html').send(docs));
  app.get('/docs/errors', (_req, res) => void res.type('html').send(errors));
}
