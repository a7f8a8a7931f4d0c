import { echoServer, poster } from '../http.mjs';

export const serve = echoServer;
export const connect = (port) => poster(port);
