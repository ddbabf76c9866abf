-- The shop's tables. Money is in cents.
CREATE TABLE categories (
  id INT PRIMARY KEY AUTO_INCREMENT,
  name VARCHAR(60) NOT NULL UNIQUE,
  tax_class ENUM('standard', 'reduced', 'zero') NOT NULL
);
CREATE TABLE products (
  id INT PRIMARY KEY AUTO_INCREMENT,
  sku VARCHAR(20) NOT NULL UNIQUE,
  name VARCHAR(120) NOT NULL,
  category_id INT NOT NULL,
  price_cents INT NOT NULL CHECK (price_cents >= 0),
  active TINYINT NOT NULL DEFAULT 1,
  KEY by_category (category_id),
  FOREIGN KEY (category_id) REFERENCES categories (id)
);
CREATE TABLE price_changes (
  id INT PRIMARY KEY AUTO_INCREMENT,
  product_id INT NOT NULL,
  old_cents INT NOT NULL,
  new_cents INT NOT NULL,
  FOREIGN KEY (product_id) REFERENCES products (id)
);
CREATE TABLE warehouses (
  id INT PRIMARY KEY AUTO_INCREMENT,
  code CHAR(3) NOT NULL UNIQUE
);
CREATE TABLE stock (
  product_id INT NOT NULL,
  warehouse_id INT NOT NULL,
  on_hand INT NOT NULL,
  reserved INT NOT NULL DEFAULT 0,
  PRIMARY KEY (product_id, warehouse_id),
  CHECK (reserved >= 0),
  CHECK (on_hand >= reserved),
  FOREIGN KEY (product_id) REFERENCES products (id),
  FOREIGN KEY (warehouse_id) REFERENCES warehouses (id)
);
CREATE TABLE stock_moves (
  id INT PRIMARY KEY AUTO_INCREMENT,
  product_id INT NOT NULL,
  warehouse_id INT NOT NULL,
  delta INT NOT NULL,
  reason VARCHAR(20) NOT NULL,
  KEY by_product (product_id)
);
CREATE TABLE customers (
  id INT PRIMARY KEY AUTO_INCREMENT,
  email VARCHAR(120) NOT NULL UNIQUE,
  country CHAR(2) NOT NULL,
  segment ENUM('private', 'business', 'staff') NOT NULL
);
CREATE TABLE coupons (
  code VARCHAR(20) PRIMARY KEY,
  kind ENUM('percent', 'fixed') NOT NULL,
  value INT NOT NULL,
  min_cents INT NOT NULL,
  uses_left INT NOT NULL CHECK (uses_left >= 0),
  last_day DATE NOT NULL
);
CREATE TABLE carts (
  id INT PRIMARY KEY AUTO_INCREMENT,
  customer_id INT NOT NULL,
  FOREIGN KEY (customer_id) REFERENCES customers (id)
);
CREATE TABLE cart_items (
  cart_id INT NOT NULL,
  product_id INT NOT NULL,
  quantity INT NOT NULL CHECK (quantity > 0),
  PRIMARY KEY (cart_id, product_id),
  FOREIGN KEY (cart_id) REFERENCES carts (id) ON DELETE CASCADE,
  FOREIGN KEY (product_id) REFERENCES products (id)
);
CREATE TABLE orders (
  id INT PRIMARY KEY AUTO_INCREMENT,
  customer_id INT NOT NULL,
  status ENUM('new', 'paid', 'shipped', 'cancelled', 'refunded') NOT NULL,
  placed_at DATETIME NOT NULL,
  net_cents INT NOT NULL,
  discount_cents INT NOT NULL DEFAULT 0,
  tax_cents INT NOT NULL,
  gross_cents INT AS (net_cents - discount_cents + tax_cents) STORED,
  coupon VARCHAR(20) NULL,
  KEY by_customer (customer_id),
  KEY by_day (placed_at),
  FOREIGN KEY (customer_id) REFERENCES customers (id)
);
CREATE TABLE order_items (
  order_id INT NOT NULL,
  line_no INT NOT NULL,
  product_id INT NOT NULL,
  warehouse_id INT NOT NULL,
  quantity INT NOT NULL,
  unit_cents INT NOT NULL,
  PRIMARY KEY (order_id, line_no),
  KEY by_product (product_id),
  FOREIGN KEY (order_id) REFERENCES orders (id)
);
CREATE TABLE payments (
  id INT PRIMARY KEY AUTO_INCREMENT,
  order_id INT NOT NULL,
  method ENUM('card', 'transfer', 'invoice') NOT NULL,
  status ENUM('authorised', 'captured', 'voided', 'refunded') NOT NULL,
  amount_cents INT NOT NULL,
  refunded_cents INT NOT NULL DEFAULT 0,
  CHECK (refunded_cents <= amount_cents),
  KEY by_order (order_id),
  FOREIGN KEY (order_id) REFERENCES orders (id)
);
CREATE TABLE audit (
  id INT PRIMARY KEY AUTO_INCREMENT,
  actor VARCHAR(60) NOT NULL,
  action VARCHAR(60) NOT NULL
);
