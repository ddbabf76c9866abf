# MySQL as the sample projects use it. Debian has the real one in sid only. What a server does not need (perl, which a few
# of its tools are written in, translations, tools for other storage engines) is dropped: every worker loads this image.
FROM debian:sid-slim
RUN apt-get -o Acquire::Check-Valid-Until=false update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends passwd mysql-server-core mysql-client-core \
 && dpkg --purge --force-depends \
      $(dpkg-query -W -f '${Package}\n' | grep -xE 'perl|perl-modules-5.*|libperl5.*') \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/locale \
 && cd /usr/bin && rm -f mysqlslap myisam* mysql_migrate_keyring mysqlimport mysqlshow mysqlcheck ibd2sdi perror \
      mysql_secure_installation mysql_config_editor mysql_tzinfo_to_sql \
 && cd /usr/lib/mysql/plugin && rm -f *_client.so *group_replication* *telemetry* \
 && (getent passwd mysql || useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin mysql) \
 && install -d -o mysql -g mysql /var/lib/mysql /var/run/mysqld
COPY entrypoint.sh /usr/local/bin/database
COPY ready.sh /usr/local/bin/database-ready
VOLUME /var/lib/mysql
EXPOSE 3306
STOPSIGNAL SIGTERM
ENTRYPOINT ["database"]
