# MariaDB in the place of MySQL, for machines that cannot have Debian sid.
FROM debian:trixie-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends passwd mariadb-server-core mariadb-client-core \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/locale \
 && (getent passwd mysql || useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin mysql) \
 && install -d -o mysql -g mysql /var/lib/mysql /var/run/mysqld
COPY entrypoint.sh /usr/local/bin/database
COPY ready.sh /usr/local/bin/database-ready
VOLUME /var/lib/mysql
EXPOSE 3306
STOPSIGNAL SIGTERM
ENTRYPOINT ["database"]
